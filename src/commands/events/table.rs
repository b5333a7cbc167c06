//! Prints records as a table that fits the terminal.

use std::io::{self, Write};

use crate::clock::format_millis;
use crate::event::{Fields, text};

/// The width if the terminal's is unknown.
const WIDTH_DEFAULT: usize = 100;
const WIDTH_MIN: usize = 40;
/// `2026-11-23 10:44:05Z`
const TIME_WIDTH: usize = 20;
const CODE_WIDTH: usize = 14;
const CONVERSATION_WIDTH: usize = 36;
const INTEGRATION_WIDTH_MAX: usize = 28;
/// The conversation is shown only if this width is left for the other columns.
const OTHERS_WIDTH: usize = 50;

/// Prints the heading once, then a row for each record.
pub struct Table {
    has_heading: bool,
    integration: usize,
    conversation: usize,
    name: usize,
}

impl Table {
    /// A table with the width of the terminal.
    pub fn new() -> Self {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self::of_width(size.filter(|width| *width > 0).or(columns).unwrap_or(WIDTH_DEFAULT))
    }

    fn of_width(width: usize) -> Self {
        let left = width.max(WIDTH_MIN).saturating_sub(TIME_WIDTH + CODE_WIDTH + 2 * GAP.len());
        let conversation = if left >= CONVERSATION_WIDTH + OTHERS_WIDTH { CONVERSATION_WIDTH } else { 0 };
        let left = left.saturating_sub(if conversation > 0 { conversation + GAP.len() } else { 0 });
        let integration = if left >= 30 { (left * 2 / 5).min(INTEGRATION_WIDTH_MAX) } else { 0 };
        let name = left.saturating_sub(if integration > 0 { integration + GAP.len() } else { 0 });
        Self { has_heading: false, integration, conversation, name }
    }

    /// # Errors
    /// When the output cannot be written.
    pub fn print(&mut self, out: &mut impl Write, line: &[u8]) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_heading, true) {
            self.row(out, ["TIME (UTC)", "CODE", "EVENT", "INTEGRATION", "CONVERSATION"])?;
        }
        let Some(fields) = Fields::read(line) else { return Ok(()) };
        let time = fields.event_time().map(format_millis).unwrap_or_default();
        let time = time.get(..19).map_or("-".to_owned(), |seconds| seconds.replace('T', " ") + "Z");
        let or = |first: Option<_>, second: Option<_>| text(first.or(second));
        let name = or(fields.event_name, fields.description);
        let integration = or(fields.entity_name, fields.entity_id);
        self.row(out, [&time, &text(fields.event_id), &name, &integration, &text(fields.conversation_id)])
    }

    fn row(&self, out: &mut impl Write, values: [&str; 5]) -> io::Result<()> {
        let widths = [TIME_WIDTH, CODE_WIDTH, self.name, self.integration, self.conversation];
        let cells: Vec<String> = values
            .iter()
            .zip(widths)
            .filter(|(_, width)| *width > 0)
            .map(|(value, width)| cell(value, width))
            .collect();
        writeln!(out, "{}", cells.join(GAP).trim_end())
    }
}

const GAP: &str = "  ";

/// Cuts or pads a text to a width in characters. Control characters are replaced with a dot.
fn cell(text: &str, width: usize) -> String {
    let is_plain = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = if text.is_empty() { "-" } else { text };
    let mut cell: String = text.chars().map(|c| if is_plain(c) { c } else { '·' }).take(width + 1).collect();
    if cell.chars().count() > width {
        cell = cell.chars().take(width - 1).chain(['…']).collect();
    }
    format!("{cell:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_any_terminal() {
        let line = format!(
            r#"{{"timestamp":"2026-11-23T10:44:05.123Z","event_id":"AUDIOHOOK-0003","event_name":"{0}","entity_name":"\u001b[31m{0}","conversation_id":"0f8f91f9-a27d-4ddf-9026-7e1e3a8d73a6"}}"#,
            "é".repeat(200)
        );
        for width in [40, 60, 80, 100, 132, 200] {
            let mut out = Vec::new();
            let mut table = Table::of_width(width);
            table.print(&mut out, line.as_bytes()).unwrap();
            table.print(&mut out, b"torn").unwrap();
            let shown = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(lines.len(), 2, "{shown}");
            assert!(lines[1].starts_with("2026-11-23 10:44:05Z  AUDIOHOOK-0003  é"), "{shown}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {shown}");
            assert!(!shown.contains('\u{1b}'));
            assert_eq!(shown.contains("7e1e3a8d73a6"), width >= 132, "{width}");
        }
    }
}
