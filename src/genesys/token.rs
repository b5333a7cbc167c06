//! The OAuth2 token (client credentials): its request, its answer, and when to renew it.

use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde::Deserialize;

use super::error::{ApiError, judge_login};
use super::rest::{Answer, Call, Rest};
use crate::config::Genesys;
use crate::secret::Secret;

/// Assumed life of a token whose answer states none: the shortest life that can be set for a client.
const LIFE_UNKNOWN: Duration = Duration::from_secs(300);
/// A token is renewed when a fifth of its life is left, but no earlier than this before its end.
const RENEW_BEFORE_MAX: Duration = Duration::from_secs(1800);

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The whole `Authorization` header.
    pub authorization: Secret,
    pub life: Duration,
    obtained: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds, as a number or as text.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Token {
    /// When to get the next token, while this one is still valid.
    pub fn renew_at(&self) -> Instant {
        self.obtained + self.life - (self.life / 5).min(RENEW_BEFORE_MAX)
    }

    pub fn expires_at(&self) -> Instant {
        self.obtained + self.life
    }
}

/// Logs in: `POST {login}/oauth/token`.
///
/// # Errors
/// [`super::error::Kind::Credentials`] when the client is refused, with the cure.
pub fn log_in(rest: &Rest, genesys: &Genesys, now: Instant) -> Result<Token, ApiError> {
    let plain = format!("{}:{}", genesys.client_id, genesys.client_secret.expose());
    let authorization = Secret::new(format!("Basic {}", BASE64.encode(plain.as_bytes())));
    let url = format!("{}/oauth/token", genesys.login_url);
    let call = Call {
        what: "log in",
        method: ureq::http::Method::POST,
        url: &url,
        authorization: &authorization,
        body: Some(("application/x-www-form-urlencoded", b"grant_type=client_credentials")),
    };
    let answer = rest.send(&call)?;
    understand(&answer, now)
        .map_err(|error| error.hide(authorization.expose()).with_correlation(answer.correlation.as_deref()))
}

/// The token in the login's answer.
fn understand(answer: &Answer, now: Instant) -> Result<Token, ApiError> {
    if !answer.is_success() {
        return Err(judge_login(answer.status, &answer.body, answer.retry_after));
    }
    // The parser's own message could quote the token.
    let granted: Granted = serde_json::from_str(&answer.body)
        .map_err(|_| ApiError::invalid_response("log in", "the answer holds no token"))?;
    let told = &granted.expires_in;
    let seconds = told.as_f64().or_else(|| told.as_str()?.trim().parse().ok());
    let life = seconds.filter(|seconds| *seconds >= 1.0 && seconds.is_finite());
    let life = life.map_or(LIFE_UNKNOWN, |seconds| Duration::from_secs_f64(seconds.min(48.0 * 3600.0)));
    Ok(Token { authorization: Secret::new(format!("Bearer {}", granted.access_token)), life, obtained: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesys::error::Kind;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned(), retry_after: None, correlation: None }
    }

    #[test]
    fn a_token_is_renewed_well_before_its_end_whatever_its_life() {
        let now = Instant::now();
        for (life, renewed) in [(60, 48), (300, 240), (86_400, 84_600), (172_800, 171_000)] {
            let body = format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{life}}}"#);
            let token = understand(&answer(200, &body), now).unwrap();
            assert_eq!(token.renew_at() - now, Duration::from_secs(renewed));
            assert_eq!(token.expires_at() - now, Duration::from_secs(life));
        }
        for body in [r#"{"access_token":"t"}"#, r#"{"access_token":"t","expires_in":null}"#] {
            assert_eq!(understand(&answer(200, body), now).unwrap().life, LIFE_UNKNOWN);
        }
        let text = r#"{"access_token":"t","expires_in":"600"}"#;
        assert_eq!(understand(&answer(200, text), now).unwrap().life, Duration::from_secs(600));
    }

    #[test]
    fn a_page_of_a_proxy_is_no_token_and_is_not_quoted() {
        let error = understand(&answer(200, "<html>hunter2</html>"), Instant::now()).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidResponse);
        assert!(!error.to_string().contains("hunter2") && error.problem().cure.contains("proxy"), "{error}");
    }
}
