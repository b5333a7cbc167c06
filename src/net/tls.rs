//! TLS: trusted CA certificates and the handshake. Requires TLS 1.2 or newer.
//!
//! Must never: connect to a peer with an invalid certificate or another name. No setting turns verification off.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use native_tls::{Certificate, HandshakeError, Protocol, TlsConnector};

use super::socket::{Socket, Stream};
use crate::status::Problem;

/// The trusted CA certificates.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The machine's CA certificates.
    System,
    /// Only the CA certificates in this file; `setting` is the setting that names the file, for error messages.
    File { path: PathBuf, setting: &'static str },
}

/// Makes TLS connections. The CA certificates are loaded for the first one.
#[derive(Debug)]
pub struct Tls {
    trust: Trust,
    connector: OnceLock<TlsConnector>,
}

impl Tls {
    pub fn new(trust: Trust) -> Self {
        Self { trust, connector: OnceLock::new() }
    }

    /// The TLS connector, built on first use.
    ///
    /// # Errors
    /// When there is no CA certificate: the file is missing, unreadable or empty, or the machine has none.
    pub fn connector(&self) -> Result<&TlsConnector, Problem> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let connector = build(&self.trust)?;
        Ok(self.connector.get_or_init(|| connector))
    }

    /// Performs the handshake within the socket's deadline.
    ///
    /// # Errors
    /// When the certificate is not trusted, or the handshake fails or takes too long.
    pub fn handshake(&self, mut socket: Socket, host: &str, deadline: Instant) -> Result<Box<dyn Stream>, Problem> {
        let connector = self.connector()?;
        socket.read_ahead();
        match connector.connect(host, socket) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(HandshakeError::Failure(error)) if Instant::now() < deadline => Err(explain(host, &error.to_string())),
            // The socket blocks until its deadline, so an interrupted handshake means a timeout.
            Err(_) => {
                Err(failed(host, "no answer in time", "Check the firewall, and that the port is the peer's TLS port."))
            }
        }
    }
}

fn build(trust: &Trust) -> Result<TlsConnector, Problem> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    match trust {
        Trust::System => {
            if !system_store_exists() {
                return Err(Problem::new(
                    "cannot trust any peer: this machine has no CA certificates",
                    "Install the package ca-certificates, or set SSL_CERT_FILE to a file of CA certificates.",
                ));
            }
        }
        Trust::File { path, setting } => {
            builder.disable_built_in_roots(true);
            for certificate in certificates(path, setting)? {
                builder.add_root_certificate(certificate);
            }
        }
    }
    builder.build().map_err(|error| {
        Problem::new(format!("cannot set up TLS: {error}"), "Check this machine's OpenSSL configuration.")
    })
}

fn certificates(path: &Path, setting: &'static str) -> Result<Vec<Certificate>, Problem> {
    let wrong = |cause: String| {
        let what = format!("cannot trust any peer: {setting} {}: {cause}", path.display());
        Problem::new(what, format!("Set {setting} to a file of CA certificates in PEM."))
    };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::stack_from_pem(&pem).map_err(|_| wrong("it has an invalid certificate".to_owned()))?;
    if found.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(found) }
}

/// Whether the machine has CA certificates. If not, the error must not blame the peer.
fn system_store_exists() -> bool {
    let found = openssl_probe::probe();
    let has_entries = |folder: &PathBuf| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    found.cert_file.is_some() || found.cert_dir.iter().any(has_entries)
}

fn failed(host: &str, cause: &str, cure: &str) -> Problem {
    Problem::new(format!("cannot set up TLS with {host}: {cause}"), cure)
}

/// Converts OpenSSL's error text into a cause and a cure.
fn explain(host: &str, text: &str) -> Problem {
    if text.contains("certificate verify failed") {
        let cause = text.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or("it is not valid");
        let cure = if cause.contains("mismatch") {
            "The certificate is for another name. Check the address, and whether a proxy or another server answers there."
        } else if cause.contains("expired") || cause.contains("not yet valid") {
            "Check this machine's clock. If it is right, the peer's certificate must be renewed."
        } else {
            "If a private CA or a proxy signed it, set SSL_CERT_FILE (ELASTIC_CA_FILE for the cluster) to that CA's file."
        };
        return Problem::new(format!("certificate of {host} is not trusted: {cause}"), cure);
    }
    // error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:file.c:84:
    let cause = match text.split(':').collect::<Vec<_>>()[..] {
        ["error", _, _, _, reason, ..] => reason,
        _ => text,
    };
    let cure = if cause.contains("version") {
        "Check that the port is the peer's TLS port and that the peer speaks TLS 1.2 or newer."
    } else {
        "Check for a firewall or proxy that closes the connection."
    };
    failed(host, cause, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_file_that_is_missing_or_empty_names_its_setting() {
        for path in ["/no/such/file.pem", "/dev/null"] {
            let error = build(&Trust::File { path: path.into(), setting: "SSL_CERT_FILE" }).unwrap_err();
            assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
        }
    }

    #[test]
    fn handshake_errors_become_causes_with_cures() {
        let prefix = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:ssl/statem/statem_clnt.c:2123:";
        for (cause, cure) in [
            ("self-signed certificate in certificate chain", "SSL_CERT_FILE"),
            ("certificate has expired", "clock"),
            ("hostname mismatch", "another name"),
        ] {
            let error = explain("api.example", &format!("{prefix} ({cause})"));
            assert_eq!(error.what, format!("certificate of api.example is not trusted: {cause}"));
            assert!(error.cure.contains(cure), "{error}");
        }
        let error = explain("h", "error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:a.c:84:");
        assert_eq!(error.what, "cannot set up TLS with h: wrong version number");
    }
}
