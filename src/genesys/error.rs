//! Errors of requests to Genesys Cloud: what failed, what to do about it, and how the caller continues.
//!
//! Pure. Must never: carry a token, a secret or a channel's id.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::secret;
use crate::status::Problem;

/// How the caller must react to a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The peer could not be reached, or did not answer in time: retry with backoff.
    Network,
    /// The client's credentials were refused: only a person can fix it; retry slowly.
    Credentials,
    /// 401 to an API call, even with a new token.
    Unauthorized,
    /// 403: a role or permission is missing.
    Forbidden,
    /// 404 or 410.
    Gone,
    /// 429: no call of this client before this time has passed; if it is `None`, with backoff.
    Throttled(Option<Duration>),
    /// 408 or 5xx: retry this call after the time that `Retry-After` asks for, else with backoff.
    Unavailable(Option<Duration>),
    /// Another 4xx: the request is wrong and would fail again.
    Refused(u16),
    /// The answer is not Genesys Cloud's: a proxy's page, a redirect, a truncated answer.
    InvalidResponse,
    /// The answer exceeds the size limit: request less.
    TooLong,
}

impl Kind {
    /// Whether the cause may be this particular request: another request of this client may succeed.
    pub fn is_about_the_request(self) -> bool {
        !matches!(self, Self::Credentials | Self::Unauthorized | Self::Forbidden | Self::Throttled(_))
    }
}

/// A request that failed.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub kind: Kind,
    /// `cannot read the history: 503`
    what: String,
    /// One or two imperative sentences; empty if no cure is known.
    cure: String,
    /// `ININ-Correlation-Id` of the answer: the vendor's support asks for it.
    correlation: Option<String>,
}

impl ApiError {
    /// `what` is the verb and its object: `read the history`.
    pub fn new(kind: Kind, what: &str, cause: impl fmt::Display) -> Self {
        Self { kind, what: format!("cannot {what}: {cause}"), cure: String::new(), correlation: None }
    }

    /// The error for an answer that cannot be parsed.
    pub fn invalid_response(what: &str, cause: impl fmt::Display) -> Self {
        Self::new(Kind::InvalidResponse, what, cause)
            .with_cure("Check for a proxy in the way (HTTPS_PROXY), and that GENESYS_ENV is right.")
    }

    /// Adds a cure: imperative sentences, each with a full stop.
    pub fn with_cure(self, cure: impl Into<String>) -> Self {
        Self { cure: cure.into(), ..self }
    }

    /// Adds the correlation id of the answer, unless the error has one.
    pub fn with_correlation(mut self, correlation: Option<&str>) -> Self {
        self.correlation = self.correlation.or_else(|| correlation.map(shorten));
        self
    }

    /// Masks a secret that the service repeated in its answer.
    pub fn hide(mut self, secret: &str) -> Self {
        self.what = secret::hide(&self.what, secret).into_owned();
        self
    }

    /// What failed, with the correlation id, and what to do about it.
    pub fn problem(&self) -> Problem {
        let correlation = self.correlation.as_ref().map(|id| format!(" [correlation id {id}]")).unwrap_or_default();
        let cure = match (self.cure.as_str(), self.kind) {
            ("", Kind::Network) => "Check the network and any proxy (HTTPS_PROXY) if this lasts.",
            (cure, _) => cure,
        };
        Problem::new(format!("{}{correlation}", self.what), cure).with_correlation_id(self.correlation.as_deref())
    }
}

/// For the log: the problem and its cure on one line.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { what, cure, .. } = self.problem();
        let stop = if cure.is_empty() { "" } else { ". " };
        write!(f, "{what}{stop}{cure}")
    }
}

impl std::error::Error for ApiError {}

/// The vendor's error body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    code: Option<String>,
    error: Option<String>,
    message: Option<String>,
    #[serde(rename = "messageWithParams")]
    message_with_params: Option<String>,
    error_description: Option<String>,
    description: Option<String>,
}

/// The vendor's code, its text, and the cause built from both: `403 missing.any.permissions (the text)`.
fn words(status: u16, body: &str) -> (String, String, String) {
    let body: Body = serde_json::from_str(body).unwrap_or_default();
    let texts = [body.message, body.message_with_params, body.error_description, body.description];
    let code = body.code.or(body.error).map(|code| shorten(&code)).unwrap_or_default();
    let text = texts.into_iter().flatten().next().map(|text| shorten(&text)).unwrap_or_default();
    let shown = if text.is_empty() { String::new() } else { format!("({text})") };
    let cause = [status.to_string(), code.clone(), shown].into_iter().filter(|part| !part.is_empty());
    let cause = cause.collect::<Vec<_>>().join(" ");
    (code, text, cause)
}

/// Maximum characters of the vendor's text that are shown.
const TEXT_MAX: usize = 300;
/// The longest wait that the text of a 429 may ask for.
const HINT_MAX: Duration = Duration::from_secs(3600);

/// The beginning of the vendor's text, on one line. It is cut between words: half a token would not be masked.
pub(super) fn shorten(text: &str) -> String {
    let mut words: String = text.chars().filter(|c| !c.is_control()).collect();
    if let Some((end, _)) = words.char_indices().nth(TEXT_MAX) {
        let end = words[..end].rfind(' ').unwrap_or(0);
        words.replace_range(end.., " …");
    }
    words
}

/// The wait from a 429's text, used without `Retry-After`: `Retry the request in [27] seconds` (seen by third parties).
fn rate_limit_hint(text: &str) -> Option<Duration> {
    let (before, _) = text.split_once("] seconds")?;
    let seconds = before.rsplit('[').next()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(HINT_MAX))
}

/// Converts a status other than 2xx to an error; `permission` names the permission that a 403 usually lacks.
pub fn judge(what: &str, status: u16, body: &str, retry_after: Option<Duration>, permission: Option<&str>) -> ApiError {
    let (_, text, cause) = words(status, body);
    let (kind, cure) = match status {
        300..=399 => (
            Kind::InvalidResponse,
            "Check HTTPS_PROXY and GENESYS_ENV: a redirect comes from a proxy or from a wrong address.".to_owned(),
        ),
        401 => (
            Kind::Unauthorized,
            "Check that GENESYS_ENV (GENESYS_API_URL) and the login are of the same region.".to_owned(),
        ),
        403 => {
            let missing = permission.map_or("missing permission".to_owned(), |name| format!("permission {name}"));
            (
                Kind::Forbidden,
                format!(
                    "Give the OAuth client a role with the {missing} (Admin > Integrations > OAuth > the client > Roles)."
                ),
            )
        }
        404 | 410 => (Kind::Gone, String::new()),
        407 => (
            Kind::InvalidResponse,
            "Set the proxy's user and password in HTTPS_PROXY, or list this host in NO_PROXY.".to_owned(),
        ),
        429 => (
            Kind::Throttled(retry_after.or_else(|| rate_limit_hint(&text))),
            "Check what else uses this OAuth client: too many requests were made with it.".to_owned(),
        ),
        408 | 500..=599 => {
            (Kind::Unavailable(retry_after), "Check Genesys Cloud's status page if this lasts.".to_owned())
        }
        _ => (Kind::Refused(status), "Update the collector, or report it if it is up to date.".to_owned()),
    };
    ApiError::new(kind, what, cause).with_cure(cure)
}

/// Converts a login answer other than 200 to an error.
pub fn judge_login(status: u16, body: &str, retry_after: Option<Duration>) -> ApiError {
    const WHAT: &str = "log in";
    if !matches!(status, 400..=499) || matches!(status, 407 | 408 | 429) {
        return judge(WHAT, status, body, retry_after, None);
    }
    let (code, text, cause) = words(status, body);
    let cure = if matches!(code.as_str(), "unauthorized_client" | "unsupported_grant_type") || text.contains("grant") {
        "Use an OAuth client whose grant type is Client Credentials."
    } else if status == 404 {
        "Check GENESYS_ENV (GENESYS_LOGIN_URL): there is no login at this address."
    } else if text.contains("not found") {
        "Check GENESYS_CLIENT_ID, and that GENESYS_ENV is the organization's region."
    } else {
        "Check GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET, and that GENESYS_ENV is the organization's region."
    };
    ApiError::new(Kind::Credentials, WHAT, cause).with_cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_asks_for_its_own_next_step() {
        let asked = Some(Duration::from_secs(7));
        let kind = |status| judge("x", status, "{}", asked, None).kind;
        assert_eq!(kind(302), Kind::InvalidResponse);
        assert_eq!(kind(401), Kind::Unauthorized);
        assert_eq!(kind(403), Kind::Forbidden);
        assert_eq!(kind(404), Kind::Gone);
        assert_eq!(kind(429), Kind::Throttled(asked));
        assert_eq!((kind(408), kind(503)), (Kind::Unavailable(asked), Kind::Unavailable(asked)));
        assert_eq!(kind(400), Kind::Refused(400));
    }

    #[test]
    fn the_text_of_a_429_stands_in_for_a_missing_header() {
        let kind = |text: &str, header| judge("x", 429, &format!(r#"{{"message":"{text}"}}"#), header, None).kind;
        let hint = "Rate limit exceeded the maximum. Retry the request in [27] seconds";
        assert_eq!(kind(hint, None), Kind::Throttled(Some(Duration::from_secs(27))));
        assert_eq!(kind(hint, Some(Duration::from_secs(3))), Kind::Throttled(Some(Duration::from_secs(3))));
        assert_eq!(kind("Retry the request in [a few] seconds", None), Kind::Throttled(None));
        assert_eq!(kind("in [99999999] seconds", None), Kind::Throttled(Some(HINT_MAX)));
    }

    #[test]
    fn the_vendors_words_and_the_correlation_id_are_in_the_problem() {
        let body = r#"{"message":"Missing the following permission(s): [usage:events:view]","code":"missing.any.permissions","status":403}"#;
        let error = judge("read the history", 403, body, None, Some("usage:events:view"));
        let error = error.with_correlation(Some("abc-1")).with_correlation(Some("another"));
        assert_eq!(
            error.problem(),
            Problem::new(
                "cannot read the history: 403 missing.any.permissions (Missing the following permission(s): \
                 [usage:events:view]) [correlation id abc-1]",
                "Give the OAuth client a role with the permission usage:events:view \
                 (Admin > Integrations > OAuth > the client > Roles)."
            )
            .with_correlation_id(Some("abc-1"))
        );
    }

    #[test]
    fn a_secret_in_the_answer_is_masked() {
        let error = judge("subscribe", 400, r#"{"message":"no channel secret-channel-1"}"#, None, None);
        let shown = error.hide("secret-channel-1").hide("").to_string();
        assert!(!shown.contains("secret-channel-1") && shown.contains("…el-1"), "{shown}");
    }

    #[test]
    fn a_refused_login_names_the_cure() {
        let cure = |status, body| judge_login(status, body, None).problem().cure;
        let unknown = r#"{"error":"invalid_client","description":"client not found: abc"}"#;
        assert!(cure(400, unknown).contains("GENESYS_CLIENT_ID, and that GENESYS_ENV"));
        assert!(cure(401, r#"{"error":"invalid_client"}"#).contains("GENESYS_CLIENT_SECRET"));
        assert!(cure(400, r#"{"error":"unauthorized_client"}"#).contains("grant type"));
        assert_eq!(judge_login(401, "", None).kind, Kind::Credentials);
        let proxy = judge_login(407, "", None);
        assert!(proxy.kind == Kind::InvalidResponse && proxy.to_string().contains("HTTPS_PROXY"), "{proxy}");
        assert_eq!(judge_login(429, "", None).kind, Kind::Throttled(None));
        assert_eq!(judge_login(502, "<html>", None).kind, Kind::Unavailable(None));
    }
}
