//! What can go wrong with a request to Genesys Cloud, as one sentence with the cure, and what to do next.
//!
//! Pure. Must never: carry a token, a secret or a channel's id.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::status::Problem;

/// What a failure asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The peer could not be reached, or did not answer in time: try again with backoff.
    Network,
    /// The client's credentials were refused: only a person can cure it; try again slowly.
    Credentials,
    /// 401 to an API call, with a new token too.
    Unauthorized,
    /// 403: a role or permission is missing.
    Forbidden,
    /// 404 or 410.
    Gone,
    /// 429: not before this has passed; without it, backoff.
    Throttled(Option<Duration>),
    /// 408 or 5xx: try again with backoff.
    Unavailable,
    /// Another 4xx: the request is wrong, and will be again.
    Refused(u16),
    /// The answer is none of Genesys Cloud's: a proxy's page, a redirect, half an answer.
    Nonsense,
    /// The answer is longer than what is read of one: ask for less.
    TooLong,
}

/// A request that failed: "cannot read the history: …; what to do".
#[derive(Clone, Debug)]
pub struct ApiError {
    pub kind: Kind,
    message: String,
    cure: Option<String>,
}

impl ApiError {
    /// `what` is the verb and its object: `read the history`.
    pub fn new(kind: Kind, what: &str, cause: impl fmt::Display) -> Self {
        Self { kind, message: format!("cannot {what}: {cause}"), cure: None }
    }

    /// The same with what to do.
    fn with_cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    /// What went wrong, and what to do about it, where that is known.
    pub fn parts(&self) -> (&str, Option<&str>) {
        match &self.cure {
            Some(cure) => (&self.message, Some(cure)),
            // The errors of a dial bring their cure along.
            None => self.message.split_once("; ").map_or((&self.message, None), |(what, cure)| (what, Some(cure))),
        }
    }

    /// What went wrong, and what to do about it.
    pub fn problem(&self) -> Problem {
        let (what, cure) = self.parts();
        Problem::new(what, cure.unwrap_or("Check the network and any proxy (HTTPS_PROXY) if this lasts."))
    }

    /// Masks a secret that the service repeated in its answer.
    pub fn hide(mut self, secret: &str) -> Self {
        self.message = crate::secret::hide(&self.message, secret).into_owned();
        self
    }

    /// Adds the correlation id of the answer that could not be understood: it is what the vendor's support asks for.
    pub fn with_correlation(mut self, correlation: Option<&str>) -> Self {
        if let (Some(id), false) = (correlation, self.message.contains(CORRELATION)) {
            self.message.push_str(&format!("{CORRELATION}{}]", shorten(id)));
        }
        self
    }

    /// An answer that cannot be understood.
    pub fn nonsense(what: &str, cause: impl fmt::Display) -> Self {
        Self::new(Kind::Nonsense, what, cause)
            .with_cure("check for a proxy in the way (HTTPS_PROXY), and that GENESYS_ENV is right")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cure {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

/// The vendor's error body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    message: Option<String>,
    code: Option<String>,
    #[serde(rename = "messageWithParams")]
    message_with_params: Option<String>,
    error: Option<String>,
    description: Option<String>,
    error_description: Option<String>,
}

/// What stands before the vendor's correlation id.
const CORRELATION: &str = " [correlation id ";
/// Characters of the vendor's text that are shown.
const TEXT_MAX: usize = 300;

/// The vendor's text on one line, its beginning.
pub(super) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

/// Judges a status that is not 2xx; `permission` names what a 403 usually lacks.
pub fn judge(
    what: &str,
    status: u16,
    body: &str,
    retry_after: Option<Duration>,
    correlation: Option<&str>,
    permission: Option<&str>,
) -> ApiError {
    let parsed: Body = serde_json::from_str(body).unwrap_or_default();
    let code = parsed.code.or(parsed.error).map(|code| shorten(&code));
    let text = parsed.message.or(parsed.message_with_params).or(parsed.error_description).or(parsed.description);
    let text = text.map(|text| shorten(&text));
    let (kind, cure) = match status {
        300..=399 => (
            Kind::Nonsense,
            "the answer is a redirect: a proxy or a wrong address is in the way; check HTTPS_PROXY and GENESYS_ENV".to_owned(),
        ),
        401 => (
            Kind::Unauthorized,
            "the token is not accepted here: check that GENESYS_ENV (GENESYS_API_URL) and the login are of the same region".to_owned(),
        ),
        403 => {
            let missing = match permission {
                Some(permission) => format!("a role of the OAuth client must hold the permission {permission}"),
                None => "a role of the OAuth client lacks a permission".to_owned(),
            };
            (Kind::Forbidden, format!("{missing}; add it in Admin > Integrations > OAuth > the client > Roles"))
        }
        404 | 410 => (Kind::Gone, "it is not there".to_owned()),
        429 => (Kind::Throttled(retry_after), "too many requests of this client: see what else uses it".to_owned()),
        407 => (
            Kind::Nonsense,
            "a proxy in the way wants a login: set its user and password in HTTPS_PROXY, or name this host in NO_PROXY".to_owned(),
        ),
        408 | 500..=599 => (Kind::Unavailable, "Genesys Cloud cannot answer now: see its status page if it lasts".to_owned()),
        _ => (Kind::Refused(status), "the request was refused; update the collector or report it".to_owned()),
    };
    let mut cause = status.to_string();
    if let Some(code) = code {
        cause.push_str(&format!(" {code}"));
    }
    if let Some(text) = text {
        cause.push_str(&format!(" ({text})"));
    }
    if let Some(correlation) = correlation {
        cause.push_str(&format!("{CORRELATION}{}]", shorten(correlation)));
    }
    ApiError::new(kind, what, cause).with_cure(cure)
}

/// Judges the login's answer that is not 200.
pub fn judge_login(status: u16, body: &str, retry_after: Option<Duration>, correlation: Option<&str>) -> ApiError {
    const WHAT: &str = "log in";
    if !matches!(status, 400..=499) || matches!(status, 407 | 408 | 429) {
        return judge(WHAT, status, body, retry_after, correlation, None);
    }
    let parsed: Body = serde_json::from_str(body).unwrap_or_default();
    let code = parsed.error.unwrap_or_default();
    let text = parsed.error_description.or(parsed.description).or(parsed.message).unwrap_or_default();
    let (code, text) = (shorten(&code), shorten(&text));
    let cure = if matches!(code.as_str(), "unauthorized_client" | "unsupported_grant_type") || text.contains("grant") {
        "the OAuth client's grant type must be Client Credentials: make such a client, or change this one's grant type"
    } else if status == 404 {
        "there is no login at this address: check GENESYS_ENV (GENESYS_LOGIN_URL)"
    } else if text.contains("not found") {
        "there is no such client in this region: check GENESYS_CLIENT_ID, and that GENESYS_ENV is the organisation's region"
    } else {
        "check GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET, and that GENESYS_ENV is the organisation's region"
    };
    let detail = [code, text].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let detail = if detail.is_empty() { String::new() } else { format!(" {detail}") };
    let correlation = correlation.map_or_else(String::new, |id| format!("{CORRELATION}{}]", shorten(id)));
    ApiError::new(Kind::Credentials, WHAT, format!("{status}{detail}{correlation}")).with_cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_asks_for_its_own_next_step() {
        let kind = |status| judge("x", status, "{}", Some(Duration::from_secs(7)), None, None).kind;
        assert_eq!(kind(302), Kind::Nonsense);
        assert_eq!(kind(401), Kind::Unauthorized);
        assert_eq!(kind(403), Kind::Forbidden);
        assert_eq!(kind(404), Kind::Gone);
        assert_eq!(kind(429), Kind::Throttled(Some(Duration::from_secs(7))));
        assert_eq!((kind(408), kind(503)), (Kind::Unavailable, Kind::Unavailable));
        assert_eq!(kind(400), Kind::Refused(400));
    }

    #[test]
    fn the_vendors_words_and_correlation_id_are_in_the_sentence() {
        let body = r#"{"message":"Missing the following permission(s): [usage:events:view]","code":"missing.any.permissions","status":403}"#;
        let error = judge("read the history", 403, body, None, Some("abc-1"), Some("usage:events:view"));
        assert_eq!(
            error.to_string(),
            "cannot read the history: 403 missing.any.permissions (Missing the following permission(s): \
             [usage:events:view]) [correlation id abc-1]; a role of the OAuth client must hold the permission \
             usage:events:view; add it in Admin > Integrations > OAuth > the client > Roles"
        );
    }

    #[test]
    fn a_refused_login_names_the_cure() {
        let sentence = |status, body| judge_login(status, body, None, None).to_string();
        let unknown = r#"{"error":"invalid_client","description":"client not found: abc"}"#;
        assert!(sentence(400, unknown).contains("GENESYS_CLIENT_ID, and that GENESYS_ENV"));
        assert!(sentence(401, r#"{"error":"invalid_client"}"#).contains("GENESYS_CLIENT_SECRET"));
        assert!(sentence(400, r#"{"error":"unauthorized_client"}"#).contains("grant type"));
        assert_eq!(judge_login(401, "", None, None).kind, Kind::Credentials);
        let proxy = judge_login(407, "", None, None);
        assert!(proxy.kind == Kind::Nonsense && proxy.to_string().contains("HTTPS_PROXY"), "{proxy}");
        assert_eq!(judge_login(429, "", None, None).kind, Kind::Throttled(None));
        assert_eq!(judge_login(502, "<html>", None, None).kind, Kind::Unavailable);
    }
}
