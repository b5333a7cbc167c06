//! Finds the closest name to a misspelt setting, command or option.

/// The name closest to the word, ignoring case; `None` if none is close enough.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_ascii_lowercase();
    let measured =
        names.into_iter().map(|name| (distance(word.as_bytes(), name.to_ascii_lowercase().as_bytes()), name));
    measured.filter(|(distance, name)| *distance <= (name.len() / 3).clamp(1, 2)).min().map(|(_, name)| name)
}

/// Edit distance: letters inserted, omitted, replaced, or swapped with their neighbour.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let differ = usize::from(one[i - 1] != other[j - 1]);
                    let least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + differ);
                    let swapped = i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                    if swapped { least.min(rows[i - 2][j - 2] + 1) } else { least }
                }
            };
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_typos_are_recognised_and_more_are_not() {
        let names = ["HTTP_PORT", "HTTP_HOST", "GENESYS_ENV", "check", "demo"];
        for (word, expected) in [
            ("HTPP_PORT", Some("HTTP_PORT")),
            ("GENESYS_EMV", Some("GENESYS_ENV")),
            ("http_port", Some("HTTP_PORT")),
            ("HTTP_PROT", Some("HTTP_PORT")),
            ("chek", Some("check")),
            ("dmeo", Some("demo")),
            ("HTTP_USER_AGENT", None),
            ("memo2", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }
}
