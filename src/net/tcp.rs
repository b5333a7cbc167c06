//! Name lookup and connect, each with a limit. If one address times out or refuses, the next is tried.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::status::Problem;

/// Maximum time for one address while others are left to try.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);
/// Minimum time for one address, however many there are.
const ADDRESS_LIMIT_MIN: Duration = Duration::from_millis(250);
/// Maximum time for a lookup. The thread of a lookup that takes longer ends when the system's resolver returns.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Maximum number of concurrent lookups.
const LOOKUPS_MAX: usize = 4;

static LOOKUPS: OnceLock<Arc<()>> = OnceLock::new();

/// Resolves a host, without caching. The two address families alternate, so that a broken one costs one attempt.
///
/// # Errors
/// When there is no address, or no answer in time; with this cure.
pub fn resolve(host: &str, port: u16, cure: &str, deadline: Instant) -> Result<Vec<SocketAddr>, Problem> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |cause: &str| Problem::new(format!("cannot resolve {host}: {cause}"), cure);
    // Each lookup thread holds a reference until it ends.
    let lookup = LOOKUPS.get_or_init(Arc::default).clone();
    if Arc::strong_count(&lookup) > LOOKUPS_MAX + 1 {
        return Err(failed("earlier lookups have not been answered yet"));
    }
    let (answer, wait) = bounded(1);
    let name = host.to_owned();
    crate::thread::spawn("resolve", move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        drop(lookup);
        // The receiver is gone after the limit.
        let _ = answer.send(found);
    })
    .map_err(|error| failed(&error.to_string()))?;
    let limit = deadline.saturating_duration_since(Instant::now()).min(RESOLVE_LIMIT);
    match wait.recv_timeout(limit) {
        Ok(Ok(found)) if found.is_empty() => Err(failed("it has no address")),
        Ok(Ok(found)) => Ok(interleave(found)),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed(&format!("no answer within {} s", limit.as_secs().max(1)))),
    }
}

/// Alternates the two address families, beginning with the resolver's first choice.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let pairs = (0..first.len().max(second.len())).map(|n| [first.get(n), second.get(n)]);
    pairs.flatten().flatten().copied().collect()
}

/// Connects to the first address that accepts.
///
/// # Errors
/// The last address's error, with the number of addresses tried and this cure.
pub fn connect(name: &str, addresses: &[SocketAddr], cure: &str, deadline: Instant) -> Result<TcpStream, Problem> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for (tried, address) in addresses.iter().enumerate() {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, share(remaining, addresses.len() - tried)) {
            Ok(tcp) => {
                // Small frames must not be delayed. If this fails, the connection still works.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    let cause = if last.kind() == io::ErrorKind::TimedOut { "no answer in time".to_owned() } else { last.to_string() };
    let addresses = match addresses {
        [one] => one.to_string(),
        more => format!("{} addresses tried", more.len()),
    };
    Err(Problem::new(format!("cannot connect to {name} ({addresses}): {cause}"), cure))
}

/// The time for the next of `left` addresses.
fn share(remaining: Duration, left: usize) -> Duration {
    if left <= 1 {
        return remaining;
    }
    let fair = remaining / u32::try_from(left).unwrap_or(u32::MAX);
    ADDRESS_LIMIT.min(fair).max(ADDRESS_LIMIT_MIN).min(remaining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_addresses_stay_within_the_whole() {
        let whole = Duration::from_secs(10);
        for count in 1..30 {
            let mut remaining = whole;
            for left in (1..=count).rev() {
                remaining -= share(remaining, left);
            }
            assert_eq!(remaining, Duration::ZERO, "{count}");
        }
        assert_eq!(share(whole, 2), ADDRESS_LIMIT);
    }

    #[test]
    fn the_families_take_turns() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = parse(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "1.1.1.3:1"]);
        assert_eq!(interleave(found), expected);
    }

    #[test]
    fn an_unknown_name_is_reported_with_the_cure() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = resolve("no-such-host.invalid", 443, "check the name", deadline).unwrap_err();
        assert!(error.what.starts_with("cannot resolve no-such-host.invalid: "), "{error}");
        assert_eq!(error.cure, "check the name");
    }

    #[test]
    fn a_silent_first_address_gives_way_to_the_next() {
        // A listener with a full backlog does not answer a SYN: a silent address on loopback.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut fill = Vec::new();
        while let Ok(tcp) = TcpStream::connect_timeout(&silent_address, Duration::from_millis(300)) {
            fill.push(tcp);
            assert!(fill.len() < 64);
        }
        let good = std::net::TcpListener::bind("[::1]:0").unwrap();
        let deadline = Instant::now() + Duration::from_secs(4);
        let tcp = connect("test", &[silent_address, good.local_addr().unwrap()], "", deadline).unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good.local_addr().unwrap());
        assert!(Instant::now() < deadline);
    }
}
