//! `GET /`: the live page, whole in one answer.
//!
//! Deals with: putting style and script into the document, and the policy that lets nothing else run. Must never: put
//! anything from an event into it; the script does that, as text.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use super::answer::Answer;

pub const ICON_PATH: &str = "/icon.svg";

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");
const JS: &str = concat!(
    include_str!("page/words.js"),
    include_str!("page/wire.js"),
    include_str!("page/state.js"),
    include_str!("page/chart.js"),
    include_str!("page/table.js"),
);

/// Assembled once: everything but the nonce is the same for ever.
static DOCUMENTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["no", "yes"].map(|token| {
        let page = HTML.replace("{{version}}", env!("CARGO_PKG_VERSION")).replace("{{token}}", token);
        page.replace("{{css}}", CSS).replace("{{js}}", JS)
    })
});

/// The page; it asks for the token if one is needed. Its one script and one style carry a nonce that the policy names
/// and that no two answers share.
pub fn document(needs_token: bool) -> Answer {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Answer::new(200, "text/html; charset=utf-8", DOCUMENTS[usize::from(needs_token)].replace("{{nonce}}", &nonce))
        .with("Content-Security-Policy", policy)
        .with("X-Frame-Options", "DENY")
}

/// The page's picture.
pub fn icon() -> Answer {
    Answer::new(200, "image/svg+xml", ICON).with("Content-Security-Policy", "default-src 'none'")
}

/// 128 bits that cannot be guessed: the standard library's hash keys come from the system's random source.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_admits_this_answers_own_script_and_style_alone() {
        let (one, other) = (document(false), document(true));
        let policy = |answer: &Answer| {
            let header = answer.headers.iter().find(|(name, _)| *name == "Content-Security-Policy");
            header.map(|(_, value)| value.clone()).unwrap()
        };
        assert_ne!(policy(&one), policy(&other));
        let nonce = policy(&one).split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let body = String::from_utf8(Vec::from(one.body.into_pieces()).concat()).unwrap();
        assert_eq!(body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        for mark in ["{{nonce}}", "{{css}}", "{{js}}", "{{version}}", "{{token}}"] {
            assert!(!body.contains(mark), "{mark} was left");
        }
        assert!(body.contains("data-token=\"no\""));
        for tag in ["<script", "<style"] {
            assert_eq!(body.matches(tag).count(), 1, "{tag}");
        }
    }

    #[test]
    fn the_page_asks_nobody_else_for_anything() {
        for text in [HTML, CSS, JS, ICON] {
            for bad in [
                "http://",
                "https://",
                "//cdn",
                "@import",
                " url(",
                ":url(",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
            ] {
                let allowed = text.matches("http://www.w3.org/").count() * usize::from(bad == "http://");
                assert_eq!(text.matches(bad).count(), allowed, "{bad}");
            }
        }
    }
}
