//! Converts ELASTIC_AUTH to the `Authorization` header. Errors never contain the given value.

use super::address::percent_decode;
use super::values::Parsed;
use data_encoding::BASE64;

use crate::secret::Secret;

/// The value of the header for `user:pass`, `Basic …`, `Bearer …`, `ApiKey …`, or a bare bearer token.
pub fn header(text: &str) -> Parsed<Secret> {
    if text.contains(char::is_control) {
        return Err("must not contain a control character".to_owned());
    }
    let trimmed = text.trim();
    let (scheme, token) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
    for known in ["Basic", "Bearer", "ApiKey"] {
        if known.eq_ignore_ascii_case(scheme) {
            return scheme_and_token(known, token.trim());
        }
    }
    if let Some((user, _)) = text.split_once(':') {
        if user.is_empty() {
            return Err("has no user before the colon: it must be user:pass".to_owned());
        }
        return Ok(basic(text));
    }
    scheme_and_token("Bearer", trimmed)
}

fn scheme_and_token(scheme: &str, token: &str) -> Parsed<Secret> {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be user:pass, 'Bearer TOKEN', 'ApiKey KEY', or a token without blanks".to_owned());
    }
    if scheme == "ApiKey" && token.contains(':') {
        // The cluster shows an API key as `id:key`. The header needs it in base64.
        return Ok(Secret::new(format!("ApiKey {}", BASE64.encode(token.as_bytes()))));
    }
    Ok(Secret::new(format!("{scheme} {token}")))
}

/// The header for the percent-encoded `user:pass` of an address.
pub fn from_user_info(user_info: &str) -> Parsed<Secret> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (user, password) = (percent_decode(user)?, percent_decode(password)?);
    if user.is_empty() {
        return Err("has no user before the colon: write https://user:pass@host, or use ELASTIC_AUTH".to_owned());
    }
    Ok(basic(&format!("{user}:{password}")))
}

fn basic(user_and_password: &str) -> Secret {
    Secret::new(format!("Basic {}", BASE64.encode(user_and_password.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_its_header() {
        for (text, expected) in [
            ("elastic:changeme", "Basic ZWxhc3RpYzpjaGFuZ2VtZQ=="),
            ("user:pa:ss wörd", "Basic dXNlcjpwYTpzcyB3w7ZyZA=="),
            ("user:", "Basic dXNlcjo="),
            ("user: ", "Basic dXNlcjog"),
            ("Basic dXNlcjo=", "Basic dXNlcjo="),
            ("Bearer abc.def", "Bearer abc.def"),
            ("bearer abc", "Bearer abc"),
            ("ApiKey a2V5", "ApiKey a2V5"),
            ("apikey id:key", "ApiKey aWQ6a2V5"),
            ("abc.def-ghi_=", "Bearer abc.def-ghi_="),
        ] {
            assert_eq!(header(text).expect(text).expose(), expected);
        }
        for text in [":pass", "Bearer ", "apikey", "two words", "Bearer a b", "a\nb"] {
            let error = header(text).expect_err(text);
            assert!(!error.contains("pass") || error.contains("user:pass"), "{error}");
        }
    }

    #[test]
    fn an_addresss_user_and_password_are_decoded() {
        assert_eq!(from_user_info("u%40x:p%3Aw").expect("valid").expose(), "Basic dUB4OnA6dw==");
        assert_eq!(from_user_info("user").expect("valid").expose(), "Basic dXNlcjo=");
        assert!(from_user_info(":x").is_err());
    }
}
