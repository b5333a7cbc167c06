//! The live page's files, and the content security policy that lets nothing else run. The files hold no data of events:
//! the script fetches it and inserts it as text.

use std::borrow::Cow;

use super::answer::Answer;

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");
const JS: &str = concat!(
    "\"use strict\";\n",
    include_str!("page/dom.js"),
    include_str!("page/format.js"),
    include_str!("page/api.js"),
    include_str!("page/state.js"),
    include_str!("page/chart.js"),
    include_str!("page/table.js"),
    include_str!("page/record.js"),
    include_str!("page/main.js"),
);

const HTML_TYPE: &str = "text/html; charset=utf-8";

/// The page loads only its own files and connects only to its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's file at this path, if there is one. With `needs_token` the page asks the user for the token before it
/// requests data.
pub fn file(path: &str, needs_token: bool) -> Option<Answer> {
    let (content_type, text): (_, Cow<'static, str>) = match path {
        "/" if needs_token => (HTML_TYPE, HTML.replacen("data-token=\"no\"", "data-token=\"yes\"", 1).into()),
        "/" => (HTML_TYPE, HTML.into()),
        "/page.css" => ("text/css; charset=utf-8", CSS.into()),
        "/page.js" => ("text/javascript; charset=utf-8", JS.into()),
        "/icon.svg" => ("image/svg+xml", ICON.into()),
        _ => return None,
    };
    let answer = Answer::new(200, content_type, text.into_owned()).with("Content-Security-Policy", POLICY);
    Some(answer.with("X-Frame-Options", "DENY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_reads_no_markup() {
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
        for path in ["page.css", "page.js", "icon.svg"] {
            assert!(HTML.contains(&format!("\"{path}\"")) && file(&format!("/{path}"), false).is_some(), "{path}");
        }
        assert_eq!(HTML.matches("data-token=\"no\"").count(), 1);
        assert!(!HTML.contains("<style") && !HTML.contains(" style="), "the policy forbids it");
    }
}
