//! Logins: clients, valid tokens, and the rate limit of each client.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use super::http::form_pairs;

/// The window in which a client's requests are counted.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Beyond this number of tokens, invalid ones are removed and then count as unknown.
const TOKENS_MAX: usize = 10_000;

/// A client that may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub secret: String,
}

struct Token {
    client: String,
    ends: Instant,
    revoked: bool,
}

/// Code and message of the answer to a call without a valid token.
pub(super) type Dead = (&'static str, &'static str);

const MISSING: Dead = ("authentication.required", "No authentication bearer token specified in authorization header.");
const UNKNOWN: Dead = ("bad.credentials", "Invalid login credentials.");
const EXPIRED: Dead = ("credentials.expired", "The token has expired.");

#[derive(Default)]
pub(super) struct Tokens {
    clients: Vec<Client>,
    tokens: HashMap<String, Token>,
    requests: HashMap<String, VecDeque<Instant>>,
}

impl Tokens {
    pub fn new(clients: Vec<Client>) -> Self {
        Self { clients, ..Self::default() }
    }

    /// Issues a token to an authenticated client.
    ///
    /// # Errors
    /// Status, error and description of the refusal.
    pub fn grant(
        &mut self,
        authorization: Option<&str>,
        form: &[u8],
        life: Duration,
    ) -> Result<String, (u16, &'static str, &'static str)> {
        let pair = authorization.and_then(|header| BASE64.decode(strip_scheme(header, "basic")?.as_bytes()).ok());
        let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.ok_or((401, "invalid_client", "no client authentication"))?;
        let (id, secret) = pair.split_once(':').ok_or((400, "invalid_client", "malformed client authentication"))?;
        let client = self.clients.iter().find(|client| client.id == id);
        let client = client.ok_or((400, "invalid_client", "client not found"))?;
        if client.secret != secret {
            return Err((401, "invalid_client", "authentication failed"));
        }
        let form = String::from_utf8_lossy(form);
        match form_pairs(&form).find(|(name, _)| name == "grant_type") {
            Some((_, grant)) if grant == "client_credentials" => {}
            None => return Err((400, "invalid_request", "grant_type is missing")),
            Some(_) => return Err((400, "unsupported_grant_type", "grant_type is not enabled for this client")),
        }
        let now = Instant::now();
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, token| !token.revoked && token.ends > now);
        }
        let text = [random(), random(), random()].map(|part| format!("{part:016x}")).concat();
        self.tokens.insert(text.clone(), Token { client: client.id.clone(), ends: now + life, revoked: false });
        Ok(text)
    }

    /// The client of the header's token, if the token is valid.
    pub fn check(&self, authorization: Option<&str>) -> Result<String, Dead> {
        let text = authorization.and_then(|header| strip_scheme(header, "bearer")).ok_or(MISSING)?;
        match self.tokens.get(text) {
            Some(token) if !token.revoked && token.ends > Instant::now() => Ok(token.client.clone()),
            Some(token) if !token.revoked => Err(EXPIRED),
            _ => Err(UNKNOWN),
        }
    }

    /// Revokes every token.
    pub fn revoke_all(&mut self) {
        self.tokens.values_mut().for_each(|token| token.revoked = true);
    }

    /// Expires every token.
    pub fn expire_all(&mut self) {
        let now = Instant::now();
        self.tokens.values_mut().for_each(|token| token.ends = now);
    }

    /// Counts a request against its client's limit.
    ///
    /// # Errors
    /// The whole seconds until another request is allowed.
    pub fn count(&mut self, client: &str, limit: u32, now: Instant) -> Result<(), u64> {
        let times = self.requests.entry(client.to_owned()).or_default();
        while times.front().is_some_and(|at| now.duration_since(*at) >= RATE_WINDOW) {
            times.pop_front();
        }
        match times.front() {
            Some(oldest) if times.len() >= limit as usize => {
                let left = RATE_WINDOW.saturating_sub(now.duration_since(*oldest));
                Err(left.as_millis().div_ceil(1000).max(1) as u64)
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

/// The part after the scheme, which is matched ignoring case.
pub(super) fn strip_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (name, rest) = header.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// An unpredictable number, independent of the seed.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_limit_the_wait_is_returned_in_seconds() {
        let start = Instant::now();
        let mut tokens = Tokens::new(Vec::new());
        for second in 0..3 {
            assert_eq!(tokens.count("id", 3, start + Duration::from_secs(second)), Ok(()));
        }
        assert_eq!(tokens.count("id", 3, start + Duration::from_millis(10_500)), Err(50));
        assert_eq!(tokens.count("other", 3, start), Ok(()), "each client has its own limit");
        assert_eq!(tokens.count("id", 3, start + Duration::from_secs(60)), Ok(()));
    }
}
