//! Logins: who may have a token, which tokens are alive, and how many requests a client may make.
//!
//! Deals with: the client-credentials grant's verdicts. Must never: let a token say by its text whose it is.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, BASE64URL_NOPAD};

/// Over this time a client's requests are counted.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Dead tokens that are remembered, so that they are told from texts that never were a token.
const DEAD_TOKENS_MAX: usize = 10_000;

/// Who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub secret: String,
}

/// A living token.
#[derive(Clone, Debug)]
struct Token {
    client: String,
    ends: Instant,
    revoked: bool,
}

/// Why a login is refused: the two fields of the answer, and its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: u16,
    pub error: &'static str,
    pub description: &'static str,
}

/// What the service says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    /// None was sent.
    Missing,
    /// It is none, or was revoked.
    Unknown,
    Expired,
}

impl Dead {
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "authentication.required",
            Self::Unknown => "bad.credentials",
            Self::Expired => "credentials.expired",
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "No authentication bearer token specified in authorization header.",
            Self::Unknown => "Invalid login credentials.",
            Self::Expired => "The token has expired.",
        }
    }
}

pub(super) struct Tokens {
    clients: Vec<Client>,
    tokens: HashMap<String, Token>,
    order: VecDeque<String>,
    requests: HashMap<String, VecDeque<Instant>>,
}

impl Tokens {
    pub fn new(clients: Vec<Client>) -> Self {
        Self { clients, tokens: HashMap::new(), order: VecDeque::new(), requests: HashMap::new() }
    }

    /// Makes a token for who proves to be a client.
    ///
    /// # Errors
    /// The refusal, as the service words it.
    pub fn grant(
        &mut self,
        authorization: Option<&str>,
        form: &[u8],
        life: Duration,
        now: Instant,
    ) -> Result<String, Refused> {
        let refused = |status, error, description| Err(Refused { status, error, description });
        let Some(pair) = authorization.and_then(basic_credentials) else {
            return refused(401, "invalid_client", "no client authentication");
        };
        let Some((id, secret)) = pair.split_once(':') else {
            return refused(400, "invalid_client", "malformed client authentication");
        };
        let Some(client) = self.clients.iter().find(|client| client.id == id) else {
            return refused(400, "invalid_client", "client not found");
        };
        if client.secret != secret {
            return refused(401, "invalid_client", "authentication failed");
        }
        match form_value(form, "grant_type").as_deref() {
            Some("client_credentials") => {}
            None => return refused(400, "invalid_request", "grant_type is missing"),
            Some(_) => return refused(400, "unsupported_grant_type", "grant_type is not enabled for this client"),
        }
        let text = random_text(48);
        let token = Token { client: client.id.clone(), ends: now + life, revoked: false };
        self.tokens.insert(text.clone(), token);
        self.order.push_back(text.clone());
        if self.order.len() > DEAD_TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        Ok(text)
    }

    /// The client whose living token the header carries.
    pub fn check(&self, authorization: Option<&str>, now: Instant) -> Result<String, Dead> {
        let text = authorization.and_then(|header| strip_scheme(header, "bearer")).ok_or(Dead::Missing)?;
        let token = self.tokens.get(text).ok_or(Dead::Unknown)?;
        if token.revoked {
            Err(Dead::Unknown)
        } else if token.ends <= now {
            Err(Dead::Expired)
        } else {
            Ok(token.client.clone())
        }
    }

    /// Ends the life of every token now; `expired`: as though their time were over, else as though revoked.
    pub fn end_all(&mut self, expired: bool, now: Instant) {
        for token in self.tokens.values_mut() {
            if expired {
                token.ends = now;
            } else {
                token.revoked = true;
            }
        }
    }

    /// Counts a request against its client's limit.
    ///
    /// # Errors
    /// Whole seconds until there is room again.
    pub fn count(&mut self, client: &str, limit: u32, now: Instant) -> Result<(), u64> {
        let times = self.requests.entry(client.to_owned()).or_default();
        while times.front().is_some_and(|at| now.duration_since(*at) >= RATE_WINDOW) {
            times.pop_front();
        }
        if times.len() < limit as usize {
            times.push_back(now);
            return Ok(());
        }
        let oldest = times.front().copied().unwrap_or(now);
        let left = RATE_WINDOW.saturating_sub(now.duration_since(oldest));
        Err(left.as_millis().div_ceil(1000).max(1) as u64)
    }
}

/// `id:secret` of a `Basic` header.
fn basic_credentials(header: &str) -> Option<String> {
    let bytes = BASE64.decode(strip_scheme(header, "basic")?.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}

/// What follows the scheme, whose case does not matter.
fn strip_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (name, rest) = header.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// A field of an `application/x-www-form-urlencoded` body.
fn form_value(form: &[u8], name: &str) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (percent_decoded(key) == name).then(|| percent_decoded(value))
    })
}

/// Undoes `%xx` and `+`; what is broken stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A text of this many characters that nobody guesses, and that differs in each run whatever the seed.
pub(super) fn random_text(length: usize) -> String {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    let mut text = BASE64URL_NOPAD.encode(&bytes);
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(vec![Client { id: "id".to_owned(), secret: "s:%$".to_owned() }])
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64.encode(pair.as_bytes()))
    }

    const FORM: &[u8] = b"grant_type=client_credentials";

    #[test]
    fn only_the_right_pair_and_grant_get_a_token() {
        let now = Instant::now();
        let mut tokens = tokens();
        let mut ask = |header: Option<&str>, form: &[u8]| {
            tokens.grant(header, form, RATE_WINDOW, now).map_err(|refused| (refused.status, refused.error))
        };
        assert!(ask(Some(&basic("id:s:%$")), FORM).is_ok());
        assert!(ask(Some(&basic("id:s:%$")), b"a=b&grant%5Ftype=client_credentials").is_ok());
        assert_eq!(ask(None, FORM), Err((401, "invalid_client")));
        assert_eq!(ask(Some(&basic("id:wrong")), FORM), Err((401, "invalid_client")));
        assert_eq!(ask(Some(&basic("who:s:%$")), FORM), Err((400, "invalid_client")));
        assert_eq!(ask(Some(&basic("id:s:%$")), b""), Err((400, "invalid_request")));
        assert_eq!(ask(Some(&basic("id:s:%$")), b"grant_type=password"), Err((400, "unsupported_grant_type")));
    }

    #[test]
    fn a_token_lives_until_its_end_or_its_revocation() {
        let now = Instant::now();
        let mut tokens = tokens();
        let text = tokens.grant(Some(&basic("id:s:%$")), FORM, RATE_WINDOW, now).unwrap();
        let header = format!("bearer {text}");
        assert_eq!(tokens.check(Some(&header), now), Ok("id".to_owned()));
        assert_eq!(tokens.check(Some(&header), now + RATE_WINDOW), Err(Dead::Expired));
        assert_eq!(tokens.check(Some("bearer x"), now), Err(Dead::Unknown));
        assert_eq!(tokens.check(None, now), Err(Dead::Missing));
        tokens.end_all(false, now);
        assert_eq!(tokens.check(Some(&header), now), Err(Dead::Unknown));
    }

    #[test]
    fn over_the_limit_the_wait_is_named_in_seconds() {
        let start = Instant::now();
        let mut tokens = tokens();
        for second in 0..3 {
            assert_eq!(tokens.count("id", 3, start + Duration::from_secs(second)), Ok(()));
        }
        assert_eq!(tokens.count("id", 3, start + Duration::from_millis(10_500)), Err(50));
        assert_eq!(tokens.count("other", 3, start), Ok(()), "each client has its own limit");
        assert_eq!(tokens.count("id", 3, start + Duration::from_secs(60)), Ok(()));
    }
}
