//! Reads a file's lines from the end, so that recent lines can be found without reading the whole file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

/// Bytes per read.
const BLOCK_BYTES: u64 = 256 * 1024;

/// Longer lines are skipped.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether to continue reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    Stop,
}

/// Calls `line` with each whole line without its line feed, the last line first. `block` is called between two blocks
/// and may stop the reading.
///
/// # Errors
/// When the file cannot be read.
pub fn each_line_backwards(
    file: &File,
    mut line: impl FnMut(&[u8]),
    mut block: impl FnMut() -> Flow,
) -> io::Result<()> {
    let mut end = file.metadata()?.len();
    // The beginning of a line whose end is in the block read before.
    let mut rest: Vec<u8> = Vec::new();
    // Whether the text before `end` belongs to a line without its end: the file's torn end, or a line that is too long.
    let mut is_partial = true;
    while end > 0 {
        let from = end.saturating_sub(BLOCK_BYTES);
        let mut bytes = vec![0; (end - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        if is_partial {
            let last = bytes.iter().rposition(|b| *b == b'\n');
            is_partial = last.is_none();
            bytes.truncate(last.unwrap_or(0));
        }
        if !is_partial {
            bytes.extend_from_slice(&rest);
            let mut lines = bytes.split(|b| *b == b'\n');
            rest = lines.next().unwrap_or_default().to_vec();
            for whole in lines.collect::<Vec<_>>().into_iter().rev() {
                line(whole);
            }
            if rest.len() > LINE_BYTES_MAX {
                (rest, is_partial) = (Vec::new(), true);
            }
        }
        end = from;
        if end > 0 && block() == Flow::Stop {
            return Ok(());
        }
    }
    if !rest.is_empty() {
        line(&rest);
    }
    Ok(())
}

/// The first line of a file without its line feed; `None` if it has no whole line.
///
/// # Errors
/// When the file cannot be read.
pub fn first_line(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    BufReader::new(file.take(LINE_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_in_reverse_order() {
        let path = std::env::temp_dir().join(format!("audiohook-lines-{}", std::process::id()));
        for (count, width) in [(0, 1), (1, 10), (3, 60_000), (50_000, 20)] {
            let lines: Vec<String> = (0..count).map(|n| format!("{n:0width$}")).collect();
            let text: String = lines.iter().map(|l| l.clone() + "\n").collect::<String>() + "torn";
            std::fs::write(&path, text).unwrap();
            let mut found = Vec::new();
            let file = File::open(&path).unwrap();
            each_line_backwards(&file, |line| found.push(String::from_utf8(line.to_vec()).unwrap()), || Flow::On)
                .unwrap();
            found.reverse();
            assert_eq!(found, lines);
            assert_eq!(first_line(&file).unwrap().map(|l| String::from_utf8(l).unwrap()), lines.first().cloned());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_as_a_whole() {
        let path = std::env::temp_dir().join(format!("audiohook-long-line-{}", std::process::id()));
        for torn in ["", "torn", &"x".repeat(LINE_BYTES_MAX)] {
            std::fs::write(&path, format!("first\n{}\nlast\n{torn}", "x".repeat(2 * LINE_BYTES_MAX))).unwrap();
            let mut found = Vec::new();
            let file = File::open(&path).unwrap();
            each_line_backwards(&file, |line| found.push(String::from_utf8(line.to_vec()).unwrap()), || Flow::On)
                .unwrap();
            assert_eq!(found, ["last", "first"]);
        }
        std::fs::remove_file(path).unwrap();
    }
}
