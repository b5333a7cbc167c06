//! The command `simulate`: runs only the service, to test a collector, alerts or dashboards with.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;

use super::{Options, Pace, Simulator};

/// Serves until `stop` receives something or disconnects. `rate` is in events per minute; the default `seed` differs at
/// each start.
///
/// Exits with status 1 if the address cannot be listened on.
pub fn command<T>(listen: &str, seed: Option<u64>, rate: Option<f64>, stop: &Receiver<T>) -> ExitCode {
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    match serve(listen, seed, rate, stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "audiohook-collector: cannot simulate Genesys Cloud: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve<T>(listen: &str, seed: u64, rate: Option<f64>, stop: &Receiver<T>) -> io::Result<()> {
    let options = Options { listen: listen.to_owned(), seed, keep_issued: false, ..Options::default() };
    let clients = options.clients.clone();
    let mut simulator = Simulator::start(options)?;
    let pace = Pace::default();
    simulator.generate(Pace { per_minute: rate.unwrap_or(pace.per_minute), ..pace })?;
    let (past, url) = (simulator.view(|view| view.issued()), simulator.url());
    let mut out = io::stdout().lock();
    writeln!(out, "Simulated Genesys Cloud on {url} (seed {seed}, {past} events in the last hour).")?;
    writeln!(out, "Settings for a collector:\n")?;
    writeln!(out, "GENESYS_ENV=mypurecloud.com\nGENESYS_LOGIN_URL={url}\nGENESYS_API_URL={url}")?;
    for client in clients {
        writeln!(out, "GENESYS_CLIENT_ID={}\nGENESYS_CLIENT_SECRET={}", client.id, client.secret)?;
    }
    writeln!(out, "\nStop with Ctrl-C.")?;
    out.flush()?;
    drop(out);
    let _ = stop.recv();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_a_failure() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (_keep, stop) = crossbeam_channel::bounded::<()>(0);
        let status = command(&taken.local_addr().unwrap().to_string(), Some(1), None, &stop);
        assert_eq!(status, ExitCode::FAILURE);
    }
}
