//! The floor: what no collector can be faster than. It reads events with tungstenite and appends each to a file without
//! looking at it.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use tungstenite::Message;

/// `floor HOST:PORT FILE [CA]`: over TLS where a CA's certificate is given.
pub fn run(arguments: &[String]) {
    let [address, path, rest @ ..] = arguments else { panic!("floor HOST:PORT FILE [CA]") };
    let tcp = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5)).unwrap();
    tcp.set_nodelay(true).unwrap();
    match rest.first() {
        None => append_all(tungstenite::client(format!("ws://{address}/channels/floor"), tcp).unwrap().0, path),
        Some(ca) => {
            let root = Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
            let connector = TlsConnector::builder().add_root_certificate(root).build().unwrap();
            let tls = connector.connect("127.0.0.1", tcp).unwrap();
            append_all(tungstenite::client(format!("wss://{address}/channels/floor"), tls).unwrap().0, path);
        }
    }
}

fn append_all<S: std::io::Read + Write>(mut socket: tungstenite::WebSocket<S>, path: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            file.write_all(text.as_bytes()).unwrap();
        }
    }
}
