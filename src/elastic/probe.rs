//! Who answers at a node's address: `GET /`, judged.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use crate::elastic::template::Product;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{self, Held, Reply};

/// Time for `GET /`.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(2500);

/// What `GET /` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A cluster answers; its name and version, as `OpenSearch 2.19.1`, when the login may see it.
    Alive(Option<Server>),
    /// No cluster answers, or it refuses the login.
    Absent(Held),
}

/// Name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    pub product: Product,
}

/// Asks a node who it is.
pub fn greet(transport: &Transport, node: usize, timeout: Duration) -> Greeting {
    let mut greeting = judge_greeting(&transport.call(node, Method::GET, "/", "", timeout));
    if let Greeting::Absent(held) = &mut greeting {
        transport.mask(&mut held.why);
    }
    greeting
}

/// Judges the answer to `GET /`.
pub fn judge_greeting(outcome: &Result<Reply, Held>) -> Greeting {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(held) => return Greeting::Absent(held.clone()),
    };
    match reply.status {
        200..=299 => match serde_json::from_slice::<Value>(&reply.body) {
            Ok(document) if document.is_object() => Greeting::Alive(server_of(&document)),
            _ => Greeting::Absent(verdict::foreign()),
        },
        300..=399 | 401 | 408 | 429 | 500.. => Greeting::Absent(verdict::held(reply)),
        // A login that may only write is kept out here, and a proxy may let nothing but bulk requests through.
        _ => Greeting::Alive(None),
    }
}

fn server_of(document: &Value) -> Option<Server> {
    let version = document.get("version")?;
    let number = version.get("number")?.as_str()?;
    let is = |field: &str, value: &str| version.get(field).and_then(Value::as_str) == Some(value);
    let (name, product) = match () {
        () if is("distribution", "opensearch") => ("OpenSearch", Product::OpenSearch),
        () if is("build_flavor", "serverless") => ("Elasticsearch", Product::Serverless),
        () => ("Elasticsearch", Product::Elasticsearch),
    };
    Some(Server { name: format!("{name} {number}"), product })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::verdict::Cause;

    fn greeting(status: u16, body: &str) -> Greeting {
        judge_greeting(&Ok(Reply { status, retry_after: None, body: body.as_bytes().to_vec() }))
    }

    fn alive(name: &str, product: Product) -> Greeting {
        Greeting::Alive(Some(Server { name: name.into(), product }))
    }

    #[test]
    fn each_product_greets_by_name_and_version() {
        let opensearch = r#"{"name":"one","version":{"distribution":"opensearch","number":"2.19.1","build_type":"tar"},"tagline":"The OpenSearch Project: https://opensearch.org/"}"#;
        assert_eq!(greeting(200, opensearch), alive("OpenSearch 2.19.1", Product::OpenSearch));
        let elastic =
            r#"{"name":"one","version":{"number":"8.17.0","build_flavor":"default"},"tagline":"You Know, for Search"}"#;
        assert_eq!(greeting(200, elastic), alive("Elasticsearch 8.17.0", Product::Elasticsearch));
        let serverless = r#"{"version":{"number":"8.11.0","build_flavor":"serverless"}}"#;
        assert_eq!(greeting(200, serverless), alive("Elasticsearch 8.11.0", Product::Serverless));
    }

    #[test]
    fn a_login_page_is_no_cluster_and_a_forbidden_one_is() {
        let cause = |status, body: &str| match greeting(status, body) {
            Greeting::Absent(held) => Some(held.cause),
            Greeting::Alive(_) => None,
        };
        assert_eq!(cause(200, "<html>log in</html>"), Some(Cause::NotACluster));
        assert_eq!(cause(302, ""), Some(Cause::Redirect));
        assert_eq!(cause(503, ""), Some(Cause::Busy));
        assert_eq!(cause(401, ""), Some(Cause::Login));
        assert_eq!((cause(403, ""), cause(404, "")), (None, None));
    }
}
