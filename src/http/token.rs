//! Checks a request for HTTP_TOKEN. The time that this takes must never reveal how much of a guess is correct.

use std::hint::black_box;

use crate::secret::Secret;

/// Whether an `Authorization` header's value is `Bearer` and the token. If no token is set, every request is admitted.
pub fn admits(token: Option<&Secret>, authorization: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let presented = authorization.and_then(|value| {
        let (scheme, rest) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    });
    presented.is_some_and(|text| equal(text.as_bytes(), token.expose().as_bytes()))
}

/// Compares every byte that was presented, even after a mismatch. The time depends only on the number of those bytes.
fn equal(presented: &[u8], expected: &[u8]) -> bool {
    if expected.is_empty() {
        return false;
    }
    let mut different = u8::from(presented.len() != expected.len());
    for (at, byte) in presented.iter().enumerate() {
        different |= black_box(byte ^ expected[at % expected.len()]);
    }
    black_box(different) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_admits() {
        let token = Secret::new("s3cret token");
        for good in ["Bearer s3cret token", "bearer  s3cret token ", "BEARER s3cret token"] {
            assert!(admits(Some(&token), Some(good)), "{good}");
        }
        for bad in
            ["", "Bearer", "Bearer ", "Bearer s3cret", "Bearer s3cret token2", "Basic s3cret token", "s3cret token"]
        {
            assert!(!admits(Some(&token), Some(bad)), "{bad}");
        }
        assert!(!admits(Some(&token), None));
        assert!(!admits(Some(&Secret::new("aa")), Some("Bearer aaaa")));
        assert!(admits(None, None));
    }
}
