//! What is wrong with the settings, all of it at once.
//!
//! Must never: show the value of a secret, nor the user and password inside an address.

use std::fmt;

/// Characters of a value that are shown; a value is shown to be recognised, not to be read.
const SHOWN_CHARS_MAX: usize = 120;

/// One thing that is wrong: which setting, what it holds, and what it must be instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The variable's name, or the file (and line) that the settings were to come from.
    pub subject: String,
    /// The value as it may be shown; none where there is no value, or where it is a secret.
    pub value: Option<String>,
    /// What is wrong, and what is right.
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

/// Every error of the settings; never empty. Shown one per line.
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

/// A value as an error may show it: on one line, not endless, and without what stands before the `@` of an address or
/// behind its `?`.
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

/// The address with what may be a password replaced. It is done on the whole text rather than on its parsed parts: what
/// could not be parsed is just what gets shown.
fn without_credentials(value: &str) -> String {
    let mut text = value.to_owned();
    if let Some(at) = text.rfind('@') {
        let start = text[..at].find("://").map_or(0, |scheme| scheme + 3);
        text.replace_range(start..at, "[secret]");
    }
    // Tokens travel in queries; nothing here needs one.
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
    fn a_value_is_shown_on_one_line_and_not_endless() {
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
