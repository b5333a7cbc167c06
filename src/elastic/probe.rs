//! Identifies the server at a node's address with `GET /`.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use crate::elastic::template::Product;
use crate::elastic::transport::Transport;
use crate::elastic::verdict::{self, Held, Reply};

/// Timeout of `GET /`.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(2500);

/// A cluster's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name and version.
    pub name: String,
    pub product: Product,
}

/// Asks a node for its product and version; `None` if the login has no right to see them.
///
/// # Errors
/// When there is no response, the response does not come from a cluster, or the login is refused.
pub fn greet(transport: &Transport, node: usize, timeout: Duration) -> Result<Option<Server>, Held> {
    let answer = transport.call(node, Method::GET, "/", "", timeout);
    answer.and_then(|reply| judge_greeting(&reply)).map_err(|mut held| {
        transport.mask(&mut held.why);
        held
    })
}

/// Judges the response to `GET /`.
///
/// # Errors
/// As [`greet`].
pub fn judge_greeting(reply: &Reply) -> Result<Option<Server>, Held> {
    match reply.status {
        200..=299 => match serde_json::from_slice::<Value>(&reply.body) {
            Ok(document) if document.is_object() => Ok(server_of(&document)),
            _ => Err(verdict::not_a_cluster()),
        },
        300..=399 | 401 | 408 | 429 | 500.. => Err(verdict::held(reply)),
        // A login may have only the right to write, and a proxy may allow only bulk requests.
        _ => Ok(None),
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

    fn greeting(status: u16, body: &str) -> Result<Option<Server>, Held> {
        judge_greeting(&Reply { status, retry_after: None, body: body.as_bytes().to_vec() })
    }

    fn alive(name: &str, product: Product) -> Result<Option<Server>, Held> {
        Ok(Some(Server { name: name.into(), product }))
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
        let cause = |status, body: &str| greeting(status, body).err().map(|held| held.cause);
        assert_eq!(cause(200, "<html>log in</html>"), Some(Cause::NotACluster));
        assert_eq!(cause(302, ""), Some(Cause::Redirect));
        assert_eq!(cause(503, ""), Some(Cause::Busy));
        assert_eq!(cause(401, ""), Some(Cause::Login));
        assert_eq!((cause(403, ""), cause(404, "")), (None, None));
    }
}
