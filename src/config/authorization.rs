//! ELASTIC_AUTH, as the `Authorization` header that it stands for.
//!
//! Must never: put what it was given into an error.

use super::address::percent_decode;
use super::values::Judged;
use data_encoding::BASE64;

use crate::secret::Secret;

/// The whole value of the header for `user:pass`, `Basic …`, `Bearer …`, `ApiKey …`, or a bare bearer token.
pub fn header(text: &str) -> Judged<Secret> {
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
            return Err("has no user before the colon: give user:pass".to_owned());
        }
        return Ok(basic(text));
    }
    scheme_and_token("Bearer", trimmed)
}

fn scheme_and_token(scheme: &str, token: &str) -> Judged<Secret> {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be user:pass, 'Bearer TOKEN', 'ApiKey KEY', or a token without blanks".to_owned());
    }
    if scheme == "ApiKey" && token.contains(':') {
        // An id and a key as the cluster shows them; the header carries them encoded.
        return Ok(Secret::new(format!("ApiKey {}", BASE64.encode(token.as_bytes()))));
    }
    Ok(Secret::new(format!("{scheme} {token}")))
}

/// The header for the `user:pass` of an address, which is percent-encoded there.
pub fn from_user_info(user_info: &str) -> Judged<Secret> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (user, password) = (percent_decode(user)?, percent_decode(password)?);
    if user.is_empty() {
        return Err("has no user before the colon: give https://user:pass@host, or use ELASTIC_AUTH".to_owned());
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
            let fault = header(text).expect_err(text);
            assert!(!fault.contains("pass") || fault.contains("user:pass"), "{fault}");
        }
    }

    #[test]
    fn an_addresss_user_and_password_are_decoded() {
        assert_eq!(from_user_info("u%40x:p%3Aw").expect("valid").expose(), "Basic dUB4OnA6dw==");
        assert_eq!(from_user_info("user").expect("valid").expose(), "Basic dXNlcjo=");
        assert!(from_user_info(":x").is_err());
    }
}
