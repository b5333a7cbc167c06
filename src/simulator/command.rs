//! The command `simulate`: the service alone, to point a collector, an alert or a dashboard at.
//!
//! Deals with: what is printed. Must never: switch a fault on.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;

use super::{Client, Options, Pace, Simulator};

/// Serves until `stop` brings something or is closed. `rate`: events a minute; `seed`: what they follow from, by
/// default another one at each start.
///
/// Status 1 when the address cannot be listened on.
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
    let past = simulator.view(|view| view.issued());
    let mut out = io::stdout().lock();
    writeln!(out, "Simulated Genesys Cloud on {} (seed {seed}, {past} events in the last hour).", simulator.url())?;
    writeln!(out, "Settings for a collector:\n")?;
    writeln!(out, "{}", settings(&simulator.url(), &clients))?;
    writeln!(out, "Stop with Ctrl-C.")?;
    out.flush()?;
    drop(out);
    let _ = stop.recv();
    Ok(())
}

/// The lines of an env file that lead a collector here.
fn settings(url: &str, clients: &[Client]) -> String {
    let mut lines = format!("GENESYS_ENV=mypurecloud.com\nGENESYS_LOGIN_URL={url}\nGENESYS_API_URL={url}\n");
    for client in clients {
        lines.push_str(&format!("GENESYS_CLIENT_ID={}\nGENESYS_CLIENT_SECRET={}\n", client.id, client.secret));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_lines_are_settings() {
        let clients = [Client { id: "i".to_owned(), secret: "s".to_owned() }];
        assert_eq!(
            settings("http://127.0.0.1:9", &clients),
            "GENESYS_ENV=mypurecloud.com\nGENESYS_LOGIN_URL=http://127.0.0.1:9\nGENESYS_API_URL=http://127.0.0.1:9\n\
             GENESYS_CLIENT_ID=i\nGENESYS_CLIENT_SECRET=s\n"
        );
    }

    #[test]
    fn it_serves_until_it_is_told_to_stop() {
        // Below the ports that the system gives to whoever asks for any: nobody is given it meanwhile.
        let mut ports = (30_000..32_000).map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let listen = ports.find(|address| std::net::TcpListener::bind(address).is_ok()).unwrap();
        let (keep, stop) = crossbeam_channel::bounded::<()>(0);
        let command = move || command(&listen.to_string(), Some(1), Some(600.0), &stop);
        let running = crate::thread::spawn("simulate", command).unwrap();
        let limit = std::time::Duration::from_secs(10);
        let deadline = std::time::Instant::now() + limit;
        while std::net::TcpStream::connect_timeout(&listen, limit).is_err() {
            assert!(std::time::Instant::now() < deadline, "nobody listens");
            let _ = crossbeam_channel::after(std::time::Duration::from_millis(10)).recv();
        }
        drop(keep);
        assert_eq!(running.join().unwrap(), ExitCode::SUCCESS);
    }

    #[test]
    fn an_address_in_use_ends_it_with_a_failure() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (_keep, stop) = crossbeam_channel::bounded::<()>(0);
        let status = command(&taken.local_addr().unwrap().to_string(), Some(1), None, &stop);
        assert_eq!(status, ExitCode::FAILURE);
    }
}
