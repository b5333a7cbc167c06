//! Who of several echoes has no twin.
//!
//! Written records and echoes lie on a line, and a pair may be as far apart as the tolerance. Uncrossing two pairs never
//! makes them longer, so that a best matching can be had in the order of time: a small table over prefixes, first by the
//! number of pairs, then by the sum of their distances.

use super::Moment;

/// Beyond this many combinations only the number of pairs is sought, not the nearest: a storm of equal events.
const COMBINATIONS_MAX: usize = 16_384;

/// Which echo is left over: never more than one, for all but the newest were matched before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmatched {
    None,
    /// The last of the echoes given.
    Newest,
    /// One of the others, by its place.
    Earlier(usize),
}

/// Matches the echoes, the newest of them last, with written records of the other way.
pub(super) fn unmatched(written: &[Moment], echoes: &[Moment]) -> Unmatched {
    let newest = echoes.len() - 1;
    match (written, echoes) {
        ([], _) => return Unmatched::Newest,
        ([one], [echo]) => return if one.fits(*echo) { Unmatched::None } else { Unmatched::Newest },
        _ => {}
    }
    let mut written = written.to_vec();
    written.sort_unstable_by_key(|w| w.nominal());
    let mut order: Vec<usize> = (0..echoes.len()).collect();
    order.sort_by_key(|i| echoes[*i].nominal());
    if written.len() * echoes.len() > COMBINATIONS_MAX {
        return if pairs_at_most(&written, &order, echoes) == echoes.len() {
            Unmatched::None
        } else {
            Unmatched::Newest
        };
    }
    let matched = nearest(&written, &order, echoes, newest);
    match order.iter().find(|i| !matched[**i]) {
        None => Unmatched::None,
        Some(i) if *i == newest => Unmatched::Newest,
        Some(i) if matched[newest] => Unmatched::Earlier(*i),
        Some(_) => Unmatched::Newest,
    }
}

/// How good a matching is: more pairs, then less distance, then the newest left over rather than an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Score {
    pairs: u32,
    nearness: i64,
}

fn nearest(written: &[Moment], order: &[usize], echoes: &[Moment], newest: usize) -> Vec<bool> {
    let width = order.len() + 1;
    let mut best = vec![Score::default(); (written.len() + 1) * width];
    let paired = |w: usize, e: usize, before: Score| -> Option<Score> {
        let (one, other) = (written[w], echoes[order[e]]);
        one.fits(other).then(|| {
            let distance = 2 * (one.nominal() - other.nominal()).abs() + i64::from(order[e] == newest);
            Score { pairs: before.pairs + 1, nearness: before.nearness - distance }
        })
    };
    for w in 0..written.len() {
        for e in 0..order.len() {
            let without = best[w * width + e + 1].max(best[(w + 1) * width + e]);
            let with = paired(w, e, best[w * width + e]);
            best[(w + 1) * width + e + 1] = with.map_or(without, |with| with.max(without));
        }
    }
    let mut matched = vec![false; echoes.len()];
    let (mut w, mut e) = (written.len(), order.len());
    while w > 0 && e > 0 {
        let here = best[w * width + e];
        if here == best[(w - 1) * width + e] {
            w -= 1;
        } else if here == best[w * width + e - 1] {
            e -= 1;
        } else {
            (w, e) = (w - 1, e - 1);
            matched[order[e]] = true;
        }
    }
    matched
}

/// The number of pairs that can be had: each echo in turn takes the earliest record that is left and fits.
fn pairs_at_most(written: &[Moment], order: &[usize], echoes: &[Moment]) -> usize {
    let (mut pairs, mut next) = (0, 0);
    for i in order {
        while next < written.len() && !written[next].fits(echoes[*i]) && written[next].nominal() < echoes[*i].nominal()
        {
            next += 1;
        }
        if next < written.len() && written[next].fits(echoes[*i]) {
            pairs += 1;
            next += 1;
        }
    }
    pairs
}
