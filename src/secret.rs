//! A string that cannot be printed by accident, and masking of secrets that a peer repeats in its answers.
//!
//! Must never: show a secret through `Debug`, `Display` or `Serialize`.

use std::borrow::Cow;
use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};

/// A secret string, readable only through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret in clear, for use on the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `…` and the last four characters, enough to distinguish two secrets. A secret of eight characters or fewer
    /// becomes `…` alone.
    pub fn masked(&self) -> String {
        mask(&self.0)
    }
}

/// Masks a string as [`Secret::masked`] does.
pub fn mask(text: &str) -> String {
    let count = text.chars().count();
    if count <= 8 {
        return "…".to_owned();
    }
    format!("…{}", text.chars().skip(count - 4).collect::<String>())
}

/// Masks every occurrence of the secret in a text: plain, in Base64, percent-encoded or JSON-escaped. For the value of
/// an `Authorization` header, masks the token; for Basic and ApiKey, also the credentials it encodes.
pub fn hide<'t>(text: &'t str, secret: &str) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    for part in parts(secret) {
        if text.contains(&part) {
            text = text.replace(&part, &mask(&part)).into();
        }
        for form in forms(&part) {
            if text.contains(&form) {
                text = text.replace(&form, "…").into();
            }
        }
    }
    text
}

/// The strings to mask: the token, and the credentials and password encoded in it. The longest comes first.
fn parts(secret: &str) -> Vec<String> {
    let (scheme, token) = secret.split_once(' ').unwrap_or(("", secret));
    let token = if matches!(scheme, "Basic" | "Bearer" | "ApiKey") { token } else { secret };
    let mut parts = vec![token.to_owned()];
    let decoded = BASE64.decode(token.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // `user:password`, or `id:key` for an API key.
    if let Some(pair) = decoded.filter(|_| matches!(scheme, "Basic" | "ApiKey")) {
        let password = pair.split_once(':').map(|(_, password)| password.to_owned());
        parts.push(pair);
        parts.extend(password);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// The encodings in which a text may appear: Base64, percent-encoding, JSON escapes.
fn forms(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let encoded = |lower: bool, keep: fn(u8) -> bool| -> String {
        let digits = |byte: u8| if lower { format!("%{byte:02x}") } else { format!("%{byte:02X}") };
        bytes.iter().map(|byte| if keep(*byte) { char::from(*byte).to_string() } else { digits(*byte) }).collect()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let json = serde_json::to_string(text).unwrap_or_default();
    let json = json.trim_matches('"');
    let mut forms = vec![
        BASE64.encode(bytes).trim_end_matches('=').to_owned(),
        BASE64URL_NOPAD.encode(bytes),
        encoded(false, unreserved),
        encoded(true, unreserved),
        encoded(false, |_| false),
        json.to_owned(),
        json.replace('/', "\\/"),
    ];
    let escaped: Vec<String> =
        forms.iter().filter(|form| form.contains('/')).map(|form| form.replace('/', "\\/")).collect();
    forms.extend(escaped);
    forms.retain(|form| !form.is_empty() && form != text);
    forms
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("hunter2-hunter2");
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.masked(), "…ter2");
        assert_eq!(Secret::new("short").masked(), "…");
    }

    #[test]
    fn a_secret_that_a_peer_repeats_is_masked_in_every_form() {
        let secret = "p/ss w\"rd+1234";
        let header = format!("Basic {}", BASE64.encode(format!("user:{secret}").as_bytes()));
        let repeated = [
            secret.to_owned(),
            header.clone(),
            header.replace('/', "\\/"),
            format!("user:{secret}"),
            BASE64.encode(secret.as_bytes()),
            "p%2Fss%20w%22rd%2B1234".to_owned(),
            "p%2fss%20w%22rd%2b1234".to_owned(),
            "{\"is\":\"p/ss w\\\"rd+1234\"}".to_owned(),
        ];
        for text in repeated {
            let masked = hide(&text, &header).into_owned();
            for part in ["ss w", "ss%20w", &header[6..], &header[6..20], "c3Mgd"] {
                assert!(!masked.contains(part), "{text} became {masked}");
            }
        }
        assert_eq!(hide("token abc-def-ghi-1234 here", "Bearer abc-def-ghi-1234"), "token …1234 here");
        assert_eq!(hide("nothing here", "secret"), "nothing here");
        assert_eq!(hide("nothing here", ""), "nothing here");
    }
}
