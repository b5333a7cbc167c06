//! Who of several echoes has no twin.
//!
//! Written records and echoes lie on a line. Where all have times of their own, a pair may be as far apart as the
//! tolerance; uncrossing two pairs never makes them longer, so that a best matching can be had in the order of time: a
//! small table over prefixes, of which a narrow band is enough as long as no more than one echo is left over. A receipt
//! fits what lies long before it and little after it, so that pairs may have to cross: there the best assignment is
//! sought (the Hungarian method). Either way more pairs are better, then the lesser sum of their distances.

use super::Moment;

/// Beyond this many combinations only the number of pairs is sought, not the nearest: a storm of equal events. About a
/// millisecond.
const BAND_MAX: usize = 1 << 18;

/// The same where more than one echo may be left over: something was forgotten.
const COMBINATIONS_MAX: usize = 16_384;

/// The same where there are receipts, in steps of the assignment: about a millisecond.
const STEPS_MAX: usize = 1 << 19;

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
    let all_have_times = are_times(&written) && are_times(echoes);
    if all_have_times && let Some(found) = at_most_one_left(&written, &order, echoes) {
        return found;
    }
    let matched = match (written.len(), echoes.len()) {
        (w, e) if all_have_times && w * e <= COMBINATIONS_MAX => nearest_in_order(&written, &order, echoes, newest),
        (w, e) if e * e * (w + e) <= STEPS_MAX => nearest(&written, echoes, newest),
        _ if pairs(&written, &order, echoes) == echoes.len() => return Unmatched::None,
        _ => return Unmatched::Newest,
    };
    match order.iter().find(|i| !matched[**i]) {
        None => Unmatched::None,
        Some(i) if *i == newest => Unmatched::Newest,
        Some(i) if matched[newest] => Unmatched::Earlier(*i),
        Some(_) => Unmatched::Newest,
    }
}

fn are_times(moments: &[Moment]) -> bool {
    moments.iter().all(|moment| matches!(moment, Moment::Own(_)))
}

/// What a pair costs: its distance; and a little where there is a receipt, which is nobody's very time, and for the
/// newest, who is left over rather than an earlier one.
fn cost(written: Moment, echo: Moment, is_newest: bool) -> Option<i64> {
    let doubt = if are_times(&[written, echo]) { 0 } else { 2 };
    written.fits(echo).then(|| 2 * (written.nominal() - echo.nominal()).abs() + doubt + i64::from(is_newest))
}

/// The least cost of matching some of the first echoes, and which of them is left over.
#[derive(Clone, Copy)]
struct Least {
    /// None of them is left over.
    all: Option<i64>,
    but_one: Option<(i64, usize)>,
}

/// Who is left over, where it is one or none: then the record of the n-th echo is the n-th at the least and as many
/// farther as there are records too many. All have times of their own. `None`: more are left over, or there are too many.
fn at_most_one_left(written: &[Moment], order: &[usize], echoes: &[Moment]) -> Option<Unmatched> {
    let spare = (written.len() + 1).checked_sub(order.len())?;
    if order.len() * (spare + 2) > BAND_MAX {
        return None;
    }
    let newest = echoes.len() - 1;
    let mut before = vec![Least { all: Some(0), but_one: None }; written.len() + 1];
    let mut here = before.clone();
    for (place, echo) in order.iter().enumerate() {
        let last = written.len().min(place + 1 + spare);
        for records in place..=last {
            // Records and echoes up to here, this echo among them: the last record is nobody's, or this echo's; or this
            // echo is the one that is left over.
            let left = if records > place { here[records - 1] } else { Least { all: None, but_one: None } };
            let cost = records.checked_sub(1).and_then(|r| cost(written[r], echoes[*echo], *echo == newest));
            let paired = cost.map(|cost| (before[records - 1], cost));
            let skipped = if records <= place + spare { before[records].all } else { None };
            here[records] = Least {
                all: least(left.all, paired.and_then(|(before, cost)| Some(before.all? + cost))),
                but_one: [
                    paired.and_then(|(before, cost)| before.but_one.map(|(sum, who)| (sum + cost, who))),
                    skipped.map(|sum| (sum, *echo)),
                ]
                .into_iter()
                .fold(left.but_one, least),
            };
        }
        std::mem::swap(&mut before, &mut here);
    }
    match before[written.len()] {
        Least { all: Some(_), .. } => Some(Unmatched::None),
        Least { but_one: Some((_, who)), .. } if who == newest => Some(Unmatched::Newest),
        Least { but_one: Some((_, who)), .. } => Some(Unmatched::Earlier(who)),
        _ => None,
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How good a matching is: more pairs, then less cost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Score {
    pairs: u32,
    nearness: i64,
}

/// Which echoes have a twin. All have times of their own.
fn nearest_in_order(written: &[Moment], order: &[usize], echoes: &[Moment], newest: usize) -> Vec<bool> {
    let width = order.len() + 1;
    let mut best = vec![Score::default(); (written.len() + 1) * width];
    let paired = |w: usize, e: usize, before: Score| -> Option<Score> {
        cost(written[w], echoes[order[e]], order[e] == newest)
            .map(|cost| Score { pairs: before.pairs + 1, nearness: before.nearness - cost })
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

/// To be alone costs an echo more than all distances together; a pair that does not fit is never made.
const ALONE: i64 = 1 << 44;
const IMPOSSIBLE: i64 = 1 << 52;

/// Which echoes have a twin, whatever is known of their times: the Hungarian method, echo by echo along the cheapest
/// path of exchanges. A place is a record, or one of as many places to be alone; place 0 is where an echo enters.
fn nearest(written: &[Moment], echoes: &[Moment], newest: usize) -> Vec<bool> {
    let places = written.len() + echoes.len();
    let cost = |echo: usize, place: usize| match written.get(place - 1) {
        None => ALONE,
        Some(written) => cost(*written, echoes[echo], echo == newest).unwrap_or(IMPOSSIBLE),
    };
    let mut holders: Vec<Option<usize>> = vec![None; places + 1];
    let (mut echo_prices, mut place_prices) = (vec![0; echoes.len()], vec![0; places + 1]);
    for entering in 0..echoes.len() {
        holders[0] = Some(entering);
        let mut least = vec![i64::MAX; places + 1];
        let (mut before, mut is_visited) = (vec![0; places + 1], vec![false; places + 1]);
        let mut place = 0;
        while let Some(holder) = holders[place] {
            is_visited[place] = true;
            let (mut step, mut next) = (i64::MAX, place);
            for other in (1..=places).filter(|other| !is_visited[*other]) {
                let reduced = cost(holder, other) - echo_prices[holder] - place_prices[other];
                if reduced < least[other] {
                    (least[other], before[other]) = (reduced, place);
                }
                if least[other] < step {
                    (step, next) = (least[other], other);
                }
            }
            for other in 0..=places {
                match holders[other].filter(|_| is_visited[other]) {
                    Some(holder) => {
                        echo_prices[holder] += step;
                        place_prices[other] -= step;
                    }
                    None => least[other] = least[other].saturating_sub(step),
                }
            }
            place = next;
        }
        while place != 0 {
            holders[place] = holders[before[place]];
            place = before[place];
        }
    }
    let mut matched = vec![false; echoes.len()];
    holders[1..=written.len()].iter().flatten().for_each(|echo| matched[*echo] = true);
    matched
}

/// A number of pairs that can be had: each echo in turn takes the earliest record that is left and fits, of those with a
/// time or those without. There are no more where one side has times throughout.
fn pairs(written: &[Moment], order: &[usize], echoes: &[Moment]) -> usize {
    let (timed, loose): (Vec<Moment>, Vec<Moment>) = written.iter().partition(|w| matches!(w, Moment::Own(_)));
    let mut left = [timed.as_slice(), loose.as_slice()];
    let mut pairs = 0;
    for echo in order.iter().map(|i| echoes[*i]) {
        for left in &mut left {
            let passed = left.iter().take_while(|w| !w.fits(echo) && w.nominal() < echo.nominal()).count();
            *left = &left[passed..];
        }
        let fitting = left.iter_mut().filter(|left| left.first().is_some_and(|w| w.fits(echo)));
        if let Some(earliest) = fitting.min_by_key(|left| left[0].nominal()) {
            *earliest = &earliest[1..];
            pairs += 1;
        }
    }
    pairs
}
