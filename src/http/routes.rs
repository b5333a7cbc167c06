//! The routes, and which of them need the token. Every response is made from [`Status`] alone.

use std::sync::Arc;

use serde_json::json;
use tiny_http::{HTTPVersion, Method, Request};

use super::answer::{Answer, JSON, header};
use super::events::{self, Filter};
use super::{live, metrics, page, query, token};
use crate::secret::Secret;
use crate::status::Status;
use crate::thread;

/// Bodies up to this size fit into the socket's buffer, so sending one never blocks.
const IMMEDIATE_BYTES_MAX: usize = 32 * 1024;

/// Answers requests.
pub struct Handler {
    status: Arc<Status>,
    token: Option<Secret>,
}

const PATHS: [&str; 10] =
    ["/", "/page.css", "/page.js", "/icon.svg", "/health", "/events", "/live", "/livez", "/readyz", "/metrics"];

impl Handler {
    pub fn new(status: Arc<Status>, token: Option<Secret>) -> Self {
        Self { status, token }
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Answers a request. A long response is sent by a thread of its own, at its client's pace.
    pub fn serve(&self, request: Request) {
        let answer = self.answer(&request);
        if answer.body.len() <= IMMEDIATE_BYTES_MAX {
            return answer.send(request);
        }
        // If no thread can be started, the request is dropped, and tiny_http answers with 500.
        if let Err(error) = thread::spawn("http-answer", move || answer.send(request)) {
            log::warn!("cannot start a thread for an HTTP response: {error}");
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let hosts = request.headers().iter().filter(|header| header.field.equiv("Host")).count();
        if *request.http_version() >= HTTPVersion(1, 1) && hosts != 1 {
            return Answer::error(400, "an HTTP/1.1 request needs one Host header");
        }
        self.route(request.method(), request.url(), header(request, "Authorization"))
    }

    fn route(&self, method: &Method, target: &str, authorization: Option<&str>) -> Answer {
        let (path, pairs) = match query::split(target) {
            Ok(parts) => parts,
            Err(wrong) => return Answer::error(400, &wrong),
        };
        if !PATHS.contains(&path) {
            return Answer::error(404, "not found; there are /, /health, /events, /livez, /readyz and /metrics");
        }
        if !matches!(method, Method::Get | Method::Head) {
            return Answer::error(405, "only GET and HEAD are supported").with("Allow", "GET, HEAD");
        }
        if let Some(answer) = page::file(path, self.token.is_some()) {
            return answer;
        }
        let admitted = token::admits(self.token.as_ref(), authorization);
        let bad_query = |wrong: String| Answer::error(400, &wrong);
        match path {
            "/livez" => self.alive(),
            "/readyz" => self.ready(),
            "/health" => self.health(admitted),
            _ if !admitted => Answer::error(401, "send the token of HTTP_TOKEN as Authorization: Bearer …")
                .with("WWW-Authenticate", "Bearer"),
            "/metrics" => Answer::new(200, metrics::CONTENT_TYPE, metrics::text(&self.status)),
            "/live" => live::document(&self.status, &pairs).map_or_else(bad_query, |body| Answer::new(200, JSON, body)),
            _ => Filter::parse(pairs)
                .map_or_else(bad_query, |filter| Answer::new(200, JSON, events::document(&self.status, &filter))),
        }
    }

    fn health(&self, admitted: bool) -> Answer {
        let health = self.status.health();
        let code = if health.status == "unhealthy" { 503 } else { 200 };
        if admitted {
            Answer::json(code, &health)
        } else {
            Answer::json(code, &json!({ "status": health.status, "timestamp": health.timestamp }))
        }
    }

    /// Liveness, for a supervisor that restarts the process: 503 while a thread is stalled.
    fn alive(&self) -> Answer {
        match self.status.beats.stalled() {
            None => Answer::json(200, &json!({ "status": "alive" })),
            Some(stalled) => {
                Answer::json(503, &json!({ "status": "stalled", "thread": stalled.thread, "for_ms": stalled.for_ms }))
            }
        }
    }

    /// Readiness, for a load balancer or a rollout: 503 until events can be received.
    fn ready(&self) -> Answer {
        if self.status.ready() {
            Answer::json(200, &json!({ "status": "ready" }))
        } else {
            Answer::json(503, &json!({ "status": "starting" }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::status::{Code, Problem, STALLED_AFTER};

    fn handler(token: Option<&str>) -> Handler {
        Handler::new(Arc::new(Status::new(Clock::system(), false)), token.map(Secret::new))
    }

    fn get(handler: &Handler, target: &str, authorization: Option<&str>) -> (u16, serde_json::Value) {
        let answer = handler.route(&Method::Get, target, authorization);
        (answer.status, serde_json::from_reader(answer.body).unwrap_or_default())
    }

    #[test]
    fn health_is_503_only_when_events_are_not_kept() {
        let handler = handler(None);
        assert_eq!(get(&handler, "/health", None).1["status"], "degraded");
        handler.status.clear(Code::Starting);
        let (code, health) = get(&handler, "/health", None);
        assert_eq!((code, &health["status"], &health["reasons"]), (200, &json!("healthy"), &json!([])));
        handler.status.raise(Code::DiskWriteFailed, Problem::new("full", "Free some space."));
        let (code, health) = get(&handler, "/health", None);
        assert_eq!((code, &health["status"]), (503, &json!("unhealthy")));
        assert_eq!(health["reasons"][0]["code"], "disk_write_failed");
    }

    #[test]
    fn data_needs_the_token_and_probes_do_not() {
        let handler = handler(Some("open sesame"));
        handler.status.recent.extend([&b"{}"[..]].into_iter());
        for wrong in [None, Some("Bearer open"), Some("Basic open sesame")] {
            for path in ["/events", "/live", "/metrics"] {
                let answer = handler.route(&Method::Get, path, wrong);
                assert_eq!(answer.status, 401);
                assert!(answer.headers.contains(&("WWW-Authenticate", "Bearer")));
            }
            let (code, health) = get(&handler, "/health", wrong);
            let mut names: Vec<&str> = health.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort();
            assert_eq!((code, names), (200, vec!["status", "timestamp"]));
            assert_eq!((get(&handler, "/livez", wrong).0, get(&handler, "/readyz", wrong).0), (200, 503));
            assert_eq!((get(&handler, "/", wrong).0, get(&handler, "/icon.svg", wrong).0), (200, 200));
        }
        let right = Some("Bearer open sesame");
        assert_eq!(get(&handler, "/events", right), (200, json!({ "recent_events": [{}] })));
        assert_eq!(get(&handler, "/metrics", right).0, 200);
        assert!(get(&handler, "/health", right).1["stats"].is_object());
    }

    #[test]
    fn other_paths_and_methods_are_refused_in_json() {
        let handler = handler(None);
        for path in ["/x", "/health/", "/Health", "//", "*", "/favicon.ico", "/..%2fhealth"] {
            let (code, body) = get(&handler, path, None);
            assert!(code == 404 && body["error"].is_string(), "{path}");
        }
        for path in PATHS {
            let answer = handler.route(&Method::Delete, path, None);
            assert_eq!(answer.status, 405);
            assert!(answer.headers.contains(&("Allow", "GET, HEAD")));
            assert_eq!(handler.route(&Method::Head, path, None).status, handler.route(&Method::Get, path, None).status);
        }
        for target in ["/events?limit=many", "/events?event_id=%ff", "/live?since=x"] {
            let (code, body) = get(&handler, target, None);
            assert!(code == 400 && body["error"].is_string(), "{target}");
        }
    }

    #[test]
    fn a_thread_that_does_not_move_ends_livez() {
        let (clock, hand) = Clock::manual(1_795_430_645_123);
        let handler = Handler::new(Arc::new(Status::new(clock, false)), None);
        let beat = handler.status.beats.register("writer");
        beat.busy();
        assert_eq!(get(&handler, "/livez", None).0, 200);
        hand.advance(STALLED_AFTER + Duration::from_secs(1));
        let (code, body) = get(&handler, "/livez", None);
        assert_eq!((code, &body["thread"]), (503, &json!("writer")));
        assert_eq!(get(&handler, "/health", None).0, 503);
        beat.waiting();
        assert_eq!(get(&handler, "/livez", None).0, 200);
    }
}
