//! Deduplication: whatever comes on the socket, in the history, late, repeated or not at all, and whenever the collector is
//! restarted, the file ends with each event once.

use std::collections::BTreeSet;

use audiohook_collector::dedup::index::{Index, Records};
use audiohook_collector::dedup::rows::{Rows, Span, Verdict};
use audiohook_collector::dedup::{CONTEXT_MS, RECEIPT_DELAY_MS, Range, Record, Source, TOLERANCE_MS};
use proptest::prelude::*;

/// The instant at which a history of events begins.
const START: i64 = 1_795_430_640_000;
/// Events happen within this time.
const LENGTH_MS: i64 = 150_000;
const OVERLAP_MS: i64 = 900_000;
/// Shorter than most chains.
const SHORT_OVERLAP_MS: i64 = 20_000;
/// How long rows wait for their frames.
const ROW_WAIT_MS: i64 = 10_000;
const ROW_DELAY_MS: i64 = OVERLAP_MS + RECEIPT_DELAY_MS;
/// Most frames come sooner than this after their events: before their rows are read.
const SOON_MS: i64 = 7_900;
/// A frame may come long after its row was read.
const LATE_FRAME_MS: i64 = 120_000;
/// No row becomes visible later than this after its event.
const LATE_ROW_MS: i64 = 600_000;

/// One event, and how each source delivers it. Times are in milliseconds since [`START`].
#[derive(Clone, Copy, Debug)]
struct Event {
    content: u64,
    /// The time that the frame states.
    frame: i64,
    /// The time that the row states.
    row: i64,
    frame_has_time: bool,
    /// When frames of it arrive, after the event.
    frames_after: [Option<i64>; 2],
    /// When its row can be read, after the event.
    row_after: i64,
}

fn event(off_max: i64, untimed: f64) -> impl Strategy<Value = Event> {
    let at = prop_oneof![3 => 0..LENGTH_MS, 1 => (0i64..75).prop_map(|n| n * 2_000)];
    let frame = prop::option::weighted(0.75, prop_oneof![3 => Just(5i64), 1 => 0..SOON_MS]);
    let again = prop::option::weighted(0.1, 0..SOON_MS);
    let row_after = prop_oneof![3 => Just(500i64), 1 => 0i64..60_000, 1 => 0..LATE_ROW_MS];
    let off = prop_oneof![1 => Just(0i64), 3 => -off_max..=off_max];
    let content = prop_oneof![4 => Just(0u64), 1 => Just(1u64)];
    (content, at, off, prop::bool::weighted(1.0 - untimed), frame, again, row_after).prop_map(
        move |(content, at, off, frame_has_time, frame, again, row_after)| Event {
            content,
            frame: START + at,
            row: START + at + off,
            frame_has_time: frame_has_time || untimed == 0.0,
            // A repeated frame without a time cannot be told from another event.
            frames_after: [frame, again.filter(|_| (frame_has_time || untimed == 0.0) && frame.is_some())],
            row_after,
        },
    )
}

/// Like events in a chain: nearly as far apart as the tolerance, for minutes.
fn chain(off_max: i64) -> impl Strategy<Value = Vec<Event>> {
    (prop::collection::vec(event(off_max, 0.0), 8..60), 1_000i64..2_500).prop_map(|(mut events, step)| {
        for (n, event) in events.iter_mut().enumerate() {
            let (off, at) = (event.row - event.frame, START + n as i64 * step);
            (event.content, event.frame, event.row) = (0, at, at + off);
        }
        events
    })
}

/// No two events are equal on either source: those would be one.
fn distinct(mut events: Vec<Event>) -> Vec<Event> {
    let mut taken = BTreeSet::new();
    events.retain(|event| {
        let (frame, row) = ((event.content, event.frame, 0), (event.content, event.row, 1));
        !taken.contains(&frame) && !taken.contains(&row) && taken.insert(frame) && taken.insert(row)
    });
    events
}

/// How the collector runs.
#[derive(Clone, Debug)]
struct Run {
    overlap: i64,
    read_every: i64,
    page_rows: usize,
    /// Records that the index holds; older ones come from the files.
    index_max: usize,
    /// The collector is killed at these instants, in the middle of a read if there is one.
    kills: Vec<(i64, usize)>,
}

fn run() -> impl Strategy<Value = Run> {
    let kills = prop::collection::vec((0..LENGTH_MS + LATE_ROW_MS, 0usize..20), 0..4);
    let index_max = prop_oneof![2 => Just(1_000usize), 1 => 8usize..40];
    (10_000i64..60_000, prop_oneof![1usize..6, Just(200)], index_max, kills).prop_map(
        |(read_every, page_rows, index_max, kills)| Run {
            overlap: OVERLAP_MS,
            read_every,
            page_rows,
            index_max,
            kills,
        },
    )
}

/// The collector as far as deduplication goes: its file, and the index beside it.
struct Collector {
    file: Vec<(u64, Record)>,
    index: Index,
    index_max: usize,
    overlap: i64,
    checkpoint: i64,
}

impl Collector {
    fn new(run: &Run) -> Self {
        let (file, index) = (Vec::new(), Index::new(run.index_max, ROW_DELAY_MS));
        Self { file, index, index_max: run.index_max, overlap: run.overlap, checkpoint: START - OVERLAP_MS }
    }

    /// A start knows what the file shows, and nothing else.
    fn restart(&mut self) {
        self.index = Index::new(self.index_max, ROW_DELAY_MS);
        for (content, record) in &self.file {
            self.index.insert(*content, *record);
        }
    }

    fn write(&mut self, content: u64, record: Record) {
        self.file.push((content, record));
        self.index.insert(content, record);
    }

    fn take_frame(&mut self, event: &Event, now: i64) {
        let records = Records { index: &self.index, from_files: None };
        let timed = event.frame_has_time;
        let receipt = || self.index.free_receipt(event.content, Source::Socket, now);
        let at = if timed { event.frame } else { receipt() };
        let record = Record { at, timed, source: Source::Socket };
        let range = if timed { Range::at(at) } else { record.range(ROW_DELAY_MS) };
        if !records.has_frame(event.content, range, timed, true) {
            self.write(event.content, record);
        }
    }

    /// One read of the history; `pages_max`: it is cut short by a kill.
    fn read(&mut self, events: &[Event], now: i64, page_rows: usize, pages_max: usize) {
        let (from, to) = (self.checkpoint - self.overlap, now - ROW_WAIT_MS);
        let mut snapshot = None;
        loop {
            match self.read_with(snapshot.as_ref(), events, now, Span { from, to }, page_rows, pages_max) {
                None => return,
                Some(None) => {
                    // Older than the index reaches: the records come from the files.
                    let mut records = Index::new(usize::MAX, ROW_DELAY_MS);
                    for (content, record) in &self.file {
                        records.insert(*content, *record);
                    }
                    snapshot = Some(records);
                }
                Some(Some(open_since)) => {
                    self.checkpoint = to.min(open_since.max(self.checkpoint));
                    self.index.forget_before(self.checkpoint - self.overlap - 2 * RECEIPT_DELAY_MS);
                    return;
                }
            }
        }
    }

    /// When the first row happened that is still open, where all could be judged that are not; `None`: it was killed.
    fn read_with(
        &mut self,
        snapshot: Option<&Index>,
        events: &[Event],
        now: i64,
        span: Span,
        page_rows: usize,
        mut pages_max: usize,
    ) -> Option<Option<i64>> {
        let is_there = |event: &&Event| event.frame + event.row_after <= now && event.row >= span.from - CONTEXT_MS;
        let mut visible: Vec<&Event> = events.iter().filter(is_there).filter(|event| event.row < span.to).collect();
        visible.sort_by_key(|event| event.row);
        let mut rows = Rows::new(span);
        for page in visible.chunks(page_rows) {
            pages_max = pages_max.checked_sub(1)?;
            for event in page {
                let records = Records { index: &self.index, from_files: snapshot };
                if rows.offer(event.content, Range::at(event.row), now, "", records) == Verdict::Missing {
                    self.append(event.content, event.row);
                }
            }
            let complete_to = page.last().map_or(0, |event| event.row);
            let judged = rows.judge(complete_to, Records { index: &self.index, from_files: snapshot });
            judged.missing.iter().for_each(|row| self.append(row.content, row.time.from));
        }
        let judged = rows.finish(span.to, Records { index: &self.index, from_files: snapshot });
        judged.missing.iter().for_each(|row| self.append(row.content, row.time.from));
        Some(match judged.unjudged_since {
            Some(_) => None,
            None => Some(rows.oldest().unwrap_or(i64::MAX)),
        })
    }

    fn append(&mut self, content: u64, at: i64) {
        self.write(content, Record { at, timed: true, source: Source::History });
    }
}

/// What the file holds when every row could be read and was.
fn collect(events: &[Event], run: &Run) -> Collector {
    let end = START + LENGTH_MS + LATE_ROW_MS + 2 * run.read_every + ROW_WAIT_MS;
    let mut frames: Vec<(i64, &Event)> = events
        .iter()
        .flat_map(|event| event.frames_after.iter().flatten().map(move |after| (event.frame + after, event)))
        .collect();
    frames.sort_by_key(|(at, _)| *at);
    let mut frames = frames.into_iter().peekable();
    let mut instants: Vec<(i64, Option<usize>)> =
        run.kills.iter().map(|(at, pages)| (START + at, Some(*pages))).collect();
    instants.extend((0..).map(|n| (START + n * run.read_every, None)).take_while(|(at, _)| *at <= end));
    instants.sort_unstable();
    let mut collector = Collector::new(run);
    for (now, kill) in instants {
        while let Some((at, event)) = frames.next_if(|(at, _)| *at <= now) {
            collector.take_frame(event, at);
        }
        collector.read(events, now, run.page_rows, kill.unwrap_or(usize::MAX));
        if kill.is_some() {
            collector.restart();
        }
    }
    collector
}

/// As many records as events of each content, each within the tolerance of its event.
fn assert_each_event_is_there_once(events: &[Event], collector: &Collector) -> Result<(), TestCaseError> {
    for content in 0..2 {
        let mut times: Vec<i64> = events.iter().filter(|e| e.content == content).map(|e| e.frame).collect();
        let of_content = collector.file.iter().filter(|(c, _)| *c == content);
        let mut records: Vec<Record> = of_content.map(|(_, record)| *record).collect();
        times.sort_unstable();
        records.sort_unstable_by_key(|record| record.at);
        prop_assert_eq!(records.len(), times.len(), "{:?} in the file, {:?} happened", records, times);
        let keys: BTreeSet<_> = records.iter().map(|record| (record.at, record.timed, record.source)).collect();
        prop_assert_eq!(keys.len(), records.len(), "a record stands there twice");
        if records.iter().all(|record| record.timed) {
            let is_near = |(time, record): (&i64, &Record)| (time - record.at).abs() <= 2 * TOLERANCE_MS;
            prop_assert!(times.iter().zip(&records).all(is_near), "{:?} for {:?}", records, times);
        }
    }
    Ok(())
}

/// Some frames come after their rows were read.
fn with_late_frames(events: impl Strategy<Value = Vec<Event>>) -> impl Strategy<Value = Vec<Event>> {
    (events, prop::collection::vec(prop::option::of(0..LATE_FRAME_MS), 30)).prop_map(|(mut events, late)| {
        for (event, late) in events.iter_mut().zip(late) {
            event.frames_after[0] = event.frames_after[0].and(late).or(event.frames_after[0]);
        }
        events
    })
}

fn run_rule(events: impl Strategy<Value = Vec<Event>>) {
    run_rule_with(events, run());
}

fn run_rule_with(events: impl Strategy<Value = Vec<Event>>, run: impl Strategy<Value = Run>) {
    super::run((events.prop_map(distinct), run), |(mut events, run)| {
        if run.index_max < events.len() {
            // A frame that comes after its record was forgotten is written again: a limit that is stated.
            for event in &mut events {
                event.frames_after = [event.frames_after[0].map(|after| after.min(SOON_MS)), None];
            }
        }
        assert_each_event_is_there_once(&events, &collect(&events, &run))
    });
}

#[test]
fn each_event_is_in_the_file_once_however_far_the_two_times_differ() {
    run_rule(prop::collection::vec(event(TOLERANCE_MS, 0.0), 1..30));
}

#[test]
fn each_event_is_in_the_file_once_though_some_frames_have_no_time() {
    run_rule(prop::collection::vec(event(900, 0.1), 1..30));
}

/// The times differ by less than like events are apart: else a late frame may be written though its row was.
#[test]
fn each_event_is_in_the_file_once_though_some_frames_come_after_their_rows() {
    run_rule(with_late_frames(prop::collection::vec(event(100, 0.0), 1..30)));
}

#[test]
fn each_event_of_a_chain_of_minutes_is_in_the_file_once() {
    run_rule(chain(TOLERANCE_MS));
}

/// No row is so late that a chain was judged without it: of a chain that is read in parts, such a row cannot be told from
/// its neighbours.
#[test]
fn each_event_of_a_chain_that_is_longer_than_the_overlap_is_in_the_file_once() {
    let events = chain(TOLERANCE_MS).prop_map(|mut events| {
        events.iter_mut().for_each(|event| event.row_after = event.row_after.min(ROW_WAIT_MS - 2 * TOLERANCE_MS));
        events
    });
    run_rule_with(events, run().prop_map(|run| Run { overlap: SHORT_OVERLAP_MS, ..run }));
}

#[test]
fn the_six_like_events_of_a_known_loss_give_six_records() {
    let told = [(24_332, 24_010, false, 500), (25_000, 25_329, true, 500), (11_486, 12_126, true, 600_000)];
    let more = [(5_549, 6_323, true, 500), (19_839, 19_465, true, 500), (16_478, 15_889, true, 500)];
    let events: Vec<Event> = told
        .into_iter()
        .chain(more)
        .map(|(frame, row, has_frame, row_after)| Event {
            content: 0,
            frame: START + frame,
            row: START + row,
            frame_has_time: true,
            frames_after: [has_frame.then_some(5), None],
            row_after,
        })
        .collect();
    let run = Run { overlap: OVERLAP_MS, read_every: 60_000, page_rows: 200, index_max: 1_000, kills: Vec::new() };
    assert_eq!(collect(&events, &run).file.len(), 6);
}
