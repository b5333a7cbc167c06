//! The errors of the settings, reported together. They never show the value of a secret, nor the credentials in an
//! address.

use std::fmt;

/// Maximum length of a value in an error: enough to recognise it.
const SHOWN_CHARS_MAX: usize = 120;

/// An error in a setting: its name, its value, and what it must be instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The setting's name, or the settings file and line.
    pub subject: String,
    /// The value as it may be shown; `None` if there is none or it is a secret.
    pub value: Option<String>,
    /// What the value must be.
    pub message: String,
}

impl SettingError {
    pub fn new(subject: impl Into<String>, value: Option<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), value, message: message.into() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}: {}", self.subject, self.message),
            None => write!(f, "{}: {}", self.subject, self.message),
        }
    }
}

/// All errors of the settings, at least one. Displayed one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<SettingError>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Prepares a value for an error: on one line, cut to a maximum length, and without the part of an address before its
/// `@` or after its `?`.
pub fn shown(value: &str) -> String {
    let mut text = String::new();
    for (index, c) in without_credentials(value).chars().enumerate() {
        if index == SHOWN_CHARS_MAX {
            text.push('…');
            break;
        }
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// Replaces a possible password in an address. This works on the text, not on a parsed address, since values that
/// cannot be parsed are shown in errors.
fn without_credentials(value: &str) -> String {
    let mut text = value.to_owned();
    if let Some(at) = text.rfind('@') {
        let start = text[..at].find("://").map_or(0, |scheme| scheme + 3);
        text.replace_range(start..at, "[secret]");
    }
    // A query may contain a token, and no setting needs a query.
    if let (Some(_), Some(query)) = (text.find("://"), text.find('?')) {
        text.truncate(query + 1);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown("https://me:pa@ss@host:9200/x"), "https://[secret]@host:9200/x");
        assert_eq!(shown("me:secret@host"), "[secret]@host");
        assert_eq!(shown("http://a:b@one,http://c:d@two"), "http://[secret]@two");
        assert_eq!(shown("https://host/x?token=abc"), "https://host/x?…");
        assert_eq!(shown("plain"), "plain");
    }

    #[test]
    fn a_value_is_shown_on_one_line_and_cut() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), SHOWN_CHARS_MAX + 1);
    }

    #[test]
    fn errors_stand_one_per_line() {
        let errors = Errors(vec![
            SettingError::new("HTTP_PORT", Some("0".into()), "must be 1 or more"),
            SettingError::new("GENESYS_CLIENT_SECRET", None, "not set"),
        ]);
        assert_eq!(errors.to_string(), "HTTP_PORT=0: must be 1 or more\nGENESYS_CLIENT_SECRET: not set");
    }
}
