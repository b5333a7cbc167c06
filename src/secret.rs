//! A text that cannot be printed by accident.
//!
//! Deals with: the client's secret, tokens, channel ids, passwords. Must never: show what it holds through `Debug`,
//! `Display` or `Serialize`.

use std::borrow::Cow;
use std::fmt;

/// A secret text: its only way out is [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be put on the wire and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A mask that lets two secrets be told apart: `…` and the last four characters; of a text of eight characters or
    /// fewer, `…` alone.
    pub fn masked(&self) -> String {
        mask(&self.0)
    }
}

/// What [`Secret::masked`] gives for this text.
pub fn mask(text: &str) -> String {
    let count = text.chars().count();
    if count <= 8 {
        return "…".to_owned();
    }
    format!("…{}", text.chars().skip(count - 4).collect::<String>())
}

/// The text with this secret masked wherever it stands.
pub fn hide<'t>(text: &'t str, secret: &str) -> Cow<'t, str> {
    if secret.is_empty() || !text.contains(secret) { text.into() } else { text.replace(secret, &mask(secret)).into() }
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
}
