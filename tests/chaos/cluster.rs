//! The cluster of the oracle: a front that misbehaves, before a real search engine where Java is there, else before a
//! memory of its own.
//!
//! Must never: judge.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use audiohook_collector::elastic::template;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::fake::{Act, Fake};
use crate::load::{Numbers, is_refused, number};
use crate::plan::{IndexFault, Kind, Target};
use crate::verdict::POISON;

const INDEX: &str = "genesys-audiohook";
/// The index behind a write alias.
const FIRST_INDEX: &str = "genesys-audiohook-000001";
/// The template of a data stream.
const STREAM_TEMPLATE: &str = "/_index_template/oracle-stream";
/// Documents that one page of a search holds.
const PAGE: usize = 5_000;

const SERVES: u8 = 0;
const GONE: u8 = 1;
const HANGS: u8 = 2;
const HALF: u8 = 3;
const REFUSES_ITEMS: u8 = 4;
const TOO_LARGE: u8 = 5;
const MISSING_PIPELINE: u8 = 6;
const BLOCKED: u8 = 11;
const CLOSED: u8 = 12;
const LOGIN: u8 = 7;
const WRONG: u8 = 8;
const UNAVAILABLE: u8 = 9;
const BULK_HANGS: u8 = 10;

pub struct Cluster {
    front: Fake,
    /// What it does now.
    act: Arc<AtomicU8>,
    /// Documents in a request, beyond which it is too large.
    most: Arc<AtomicUsize>,
    /// A request was not let in, and none that matters was sent since.
    refused_login: Arc<AtomicBool>,
    engine: Option<Rc<RefCell<Engine>>>,
    target: Target,
    /// What is set on the real one's index.
    index_fault: Cell<Option<IndexFault>>,
}

impl Cluster {
    /// Starts the front; the real one behind it begins without documents and templates.
    pub fn start(engine: Option<Rc<RefCell<Engine>>>, target: Target) -> Self {
        let cluster = Self::with_front(engine, target);
        if let Some(engine) = &cluster.engine {
            prepare(&engine.borrow(), target);
            cluster.front.pass_on_to(&engine.borrow().url);
        }
        cluster.misbehave();
        cluster
    }

    fn with_front(engine: Option<Rc<RefCell<Engine>>>, target: Target) -> Self {
        Self {
            front: Fake::start(),
            act: Arc::default(),
            most: Arc::default(),
            refused_login: Arc::default(),
            engine,
            target,
            index_fault: Cell::default(),
        }
    }

    /// What ELASTIC_INDEX names.
    pub fn target(&self) -> Target {
        if self.engine.is_some() { self.target } else { Target::Index }
    }

    pub fn url(&self) -> &str {
        &self.front.url
    }

    /// Brings a fault about.
    pub fn begin(&self, kind: Kind) {
        let act = match kind {
            Kind::ClusterKilled => match &self.engine {
                Some(engine) => return engine.borrow_mut().kill(),
                None => GONE,
            },
            Kind::ClusterLostItsTemplate => {
                self.front.state().templates.clear();
                if let Some(engine) = &self.engine {
                    engine.borrow().call("DELETE", "/_index_template/audiohook-collector-*", "");
                }
                return;
            }
            Kind::ClusterTooLarge { most } => {
                self.most.store(most, Ordering::Relaxed);
                TOO_LARGE
            }
            Kind::ClusterGone => GONE,
            Kind::ClusterHangs => HANGS,
            Kind::ClusterBulkHangs => BULK_HANGS,
            Kind::ClusterAnswersHalf => HALF,
            Kind::ClusterRefusesItems => REFUSES_ITEMS,
            Kind::ClusterIndex(fault) => match &self.engine {
                Some(engine) => return self.set_on_index(&engine.borrow(), fault),
                None => match fault {
                    IndexFault::MissingPipeline => MISSING_PIPELINE,
                    IndexFault::WriteBlock | IndexFault::DiskBlock => BLOCKED,
                    IndexFault::Closed => CLOSED,
                },
            },
            Kind::ClusterRefusesLogin => LOGIN,
            Kind::ClusterWrongAnswer => WRONG,
            Kind::ClusterUnavailable => UNAVAILABLE,
            _ => return,
        };
        self.act.store(act, Ordering::Relaxed);
    }

    /// Sets something on the real one's index; it may not be there yet.
    fn set_on_index(&self, engine: &Engine, fault: IndexFault) {
        // The index that a data stream writes to cannot be closed.
        let is_stream = self.target == Target::DataStream;
        let fault = if is_stream && fault == IndexFault::Closed { IndexFault::WriteBlock } else { fault };
        let path = if is_stream { format!("/_data_stream/{INDEX}") } else { format!("/{INDEX}") };
        if engine.call("GET", &path, "").0 == 404 {
            engine.must("PUT", &path, "");
        }
        match setting(fault) {
            Some((name, value)) => put_setting(engine, name, &value),
            None => _ = engine.must("POST", &format!("/{INDEX}/_close"), ""),
        }
        self.index_fault.set(Some(fault));
    }

    /// Takes it away; a killed engine starts.
    pub fn end(&self) {
        self.act.store(SERVES, Ordering::Relaxed);
        let Some(engine) = &self.engine else { return };
        engine.borrow_mut().run_if_ended();
        match self.index_fault.take().map(setting) {
            None => {}
            Some(Some((name, _))) => put_setting(&engine.borrow(), name, &Value::Null),
            Some(None) => _ = engine.borrow().must("POST", &format!("/{INDEX}/_open"), ""),
        }
    }

    /// Whether a login was refused, and none was tried since.
    pub fn has_refused_login(&self) -> bool {
        self.refused_login.load(Ordering::Relaxed)
    }

    /// Waits until the engine answers.
    pub fn wait(&self) {
        if let Some(engine) = &self.engine {
            engine.borrow_mut().wait();
        }
    }

    /// Every document that is found there.
    pub fn documents(&self) -> Vec<String> {
        let Some(engine) = &self.engine else {
            return self.front.state().documents.values().cloned().collect();
        };
        let engine = engine.borrow();
        if engine.call("POST", &format!("/{INDEX}/_refresh"), "").0 == 404 {
            return Vec::new();
        }
        let mut documents = Vec::new();
        let first = format!(r#"{{"size":{PAGE},"sort":["_doc"]}}"#);
        let mut page = engine.must("POST", &format!("/{INDEX}/_search?scroll=1m"), &first);
        loop {
            let hits = page["hits"]["hits"].as_array().unwrap();
            if hits.is_empty() {
                return documents;
            }
            documents.extend(hits.iter().map(|hit| hit["_source"].to_string()));
            let next = serde_json::json!({ "scroll": "1m", "scroll_id": page["_scroll_id"] });
            page = engine.must("POST", "/_search/scroll", &next.to_string());
        }
    }

    /// A front that only counts: each document by the number of its event.
    pub fn counting(numbers: Arc<Mutex<Numbers>>) -> Self {
        let cluster = Self::with_front(None, Target::Index);
        cluster.misbehave();
        cluster.front.keep_nothing();
        let (act, mut count) = (cluster.act.clone(), 0_u32);
        cluster.front.on_item(move |_, document| {
            count = count.wrapping_add(1);
            if act.load(Ordering::Relaxed) == REFUSES_ITEMS && !count.is_multiple_of(3) {
                429
            } else if is_refused(number(document.as_bytes())) {
                400
            } else if numbers.lock().unwrap().insert(document.as_bytes()) {
                201
            } else {
                409
            }
        });
        cluster
    }

    /// Leads every request through what it does now.
    fn misbehave(&self) {
        const NO_PIPELINE: &str =
            r#"{"type":"illegal_argument_exception","reason":"pipeline with id [gone] does not exist"}"#;
        const IS_BLOCKED: &str = r#"{"type":"cluster_block_exception","reason":"index [genesys-audiohook] blocked by: [FORBIDDEN/8/index write (api)];"}"#;
        const IS_CLOSED: &str = r#"{"type":"index_closed_exception","reason":"closed"}"#;
        let (act, largest, refused_login) = (self.act.clone(), self.most.clone(), self.refused_login.clone());
        self.front.script(move |request| {
            let act = act.load(Ordering::Relaxed);
            // A probe that is answered is none: it only tells that somebody is there.
            if act == LOGIN || request.method != "GET" {
                refused_login.store(act == LOGIN, Ordering::Relaxed);
            }
            match act {
                GONE => Act::Close,
                HANGS => Act::Hang,
                BULK_HANGS if request.is_bulk() => Act::Hang,
                HALF if request.is_bulk() => Act::HangHalfway,
                TOO_LARGE if request.is_bulk() && request.documents() > largest.load(Ordering::Relaxed) => {
                    Act::Answer(413, "{}")
                }
                MISSING_PIPELINE if request.is_bulk() => Act::RefuseEach(400, NO_PIPELINE),
                BLOCKED if request.is_bulk() => Act::RefuseEach(403, IS_BLOCKED),
                CLOSED if request.is_bulk() => Act::RefuseEach(400, IS_CLOSED),
                LOGIN => Act::Answer(401, "{}"),
                WRONG => Act::Answer(200, "<html>please log in</html>"),
                UNAVAILABLE => Act::Answer(503, "{}"),
                _ => Act::Serve,
            }
        });
        let (act, mut count) = (self.act.clone(), 0_u32);
        self.front.on_item(move |_, document| {
            count = count.wrapping_add(1);
            let busy = act.load(Ordering::Relaxed) == REFUSES_ITEMS && !count.is_multiple_of(3);
            if busy {
                429
            } else if document.contains(POISON) {
                400
            } else {
                201
            }
        });
    }
}

/// Takes what an act before this left, and makes what ELASTIC_INDEX names.
fn prepare(engine: &Engine, target: Target) {
    engine.call("DELETE", &format!("/_data_stream/{INDEX}"), "");
    for index in [INDEX, FIRST_INDEX] {
        engine.call("DELETE", &format!("/{index}"), "");
    }
    engine.call("DELETE", "/_index_template/audiohook-collector-*", "");
    engine.call("DELETE", STREAM_TEMPLATE, "");
    match target {
        Target::Index => {}
        Target::WriteAlias => {
            let template = template::text(INDEX, template::Target::Index, None);
            let mut body = serde_json::from_str::<Value>(&template).unwrap()["template"].take();
            body["aliases"] = json!({ INDEX: { "is_write_index": true } });
            engine.must("PUT", &format!("/{FIRST_INDEX}"), &body.to_string());
        }
        Target::DataStream => {
            let template = template::text(INDEX, template::Target::DataStream, None);
            engine.must("PUT", STREAM_TEMPLATE, &template);
        }
    }
}

/// The setting of an index, and its value while the fault lasts; none: the index is closed.
fn setting(fault: IndexFault) -> Option<(&'static str, Value)> {
    match fault {
        IndexFault::MissingPipeline => Some(("index.default_pipeline", json!("gone"))),
        IndexFault::WriteBlock => Some(("index.blocks.write", json!(true))),
        IndexFault::DiskBlock => Some(("index.blocks.read_only_allow_delete", json!(true))),
        IndexFault::Closed => None,
    }
}

fn put_setting(engine: &Engine, name: &str, value: &Value) {
    engine.must("PUT", &format!("/{INDEX}/_settings"), &json!({ name: value }).to_string());
}
