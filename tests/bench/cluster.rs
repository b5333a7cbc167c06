//! A cluster that answers at once: it counts the documents of a bulk request and says that all were created.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::peer::{read_request, serve, write_answer};

pub struct Cluster {
    pub url: String,
    documents: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
}

impl Cluster {
    pub fn start() -> Self {
        let (documents, down) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, is_down) = (documents.clone(), down.clone());
        let address = serve(move |tcp| {
            let _ = tcp.set_nodelay(true);
            let Ok(mut output) = tcp.try_clone() else { return };
            let mut input = BufReader::with_capacity(256 * 1024, tcp);
            let mut text = Vec::new();
            while let Some(request) = read_request(&mut input) {
                if is_down.load(Ordering::Relaxed) {
                    return;
                }
                let answer = if request.path.contains("_bulk") {
                    text.clear();
                    if flate2::read::GzDecoder::new(&request.body[..]).read_to_end(&mut text).is_err() {
                        text.clear();
                        text.extend_from_slice(&request.body);
                    }
                    let lines = text.iter().filter(|byte| **byte == b'\n').count();
                    count.fetch_add(lines as u64 / 2, Ordering::Relaxed);
                    let items = vec![r#"{"create":{"status":201}}"#; lines / 2].join(",");
                    format!(r#"{{"errors":false,"items":[{items}]}}"#)
                } else {
                    r#"{"version":{"number":"2.19.1","distribution":"opensearch"}}"#.to_owned()
                };
                if write_answer(&mut output, "200 OK", &answer).is_err() {
                    return;
                }
            }
        });
        Self { url: format!("http://{address}"), documents, down }
    }

    /// Documents that were taken since the last call.
    pub fn take_documents(&self) -> u64 {
        self.documents.swap(0, Ordering::Relaxed)
    }

    pub fn documents(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    /// While it is down it closes each connection that asks for something.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
}
