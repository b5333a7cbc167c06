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
    let mut first_block = true;
    while end > 0 {
        let from = end.saturating_sub(BLOCK_BYTES);
        let mut bytes = vec![0; (end - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        if std::mem::take(&mut first_block)
            && let Some(last) = bytes.iter().rposition(|b| *b == b'\n')
        {
            // Text after the last line feed is not a whole line.
            bytes.truncate(last);
        }
        bytes.extend_from_slice(&rest);
        let mut lines = bytes.split(|b| *b == b'\n');
        let begun = lines.next().unwrap_or_default();
        for whole in lines.collect::<Vec<_>>().into_iter().rev() {
            line(whole);
        }
        rest = if begun.len() > LINE_BYTES_MAX { Vec::new() } else { begun.to_vec() };
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
            std::fs::write(&path, if count == 0 { "" } else { &text }).unwrap();
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
}
