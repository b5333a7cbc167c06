//! How long an event takes from its last byte sent to its line in the file, at a steady 1,000 a second.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use audiohook_collector::thread;
use crossbeam_channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::events::Shape;
use super::process::pause;
use super::stage::{Stage, Subject};
use super::table::Samples;

const EVERY: Duration = Duration::from_millis(1);
/// How long the last lines may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What the events were sent over.
enum Way {
    /// Straight into the file: what the harness alone shows.
    File(File),
    Socket(super::peer::Socket),
}

/// Milliseconds of each event, through the collector (or another), or through the harness alone.
pub fn measure(stage: &Stage, subject: Option<&Subject>, events: usize) -> Samples {
    let shape = Shape::usual();
    let frames: Vec<Vec<u8>> = (0..events).map(|n| shape.frames(n..n + 1)).collect();
    let (running, way, path) = match subject {
        Some(subject) => {
            let (running, mut socket) = stage.connected(subject, &[], false);
            // One event beforehand: the file is there, and its lines' length is known.
            socket.write_all(&shape.frames(events..events + 1)).unwrap();
            pause(Duration::from_millis(200));
            let path = running.output.clone();
            (Some(running), Way::Socket(socket), path)
        }
        None => {
            let path = stage.fresh().join("events.jsonl");
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            file.write_all(&[b'x'; 899]).unwrap();
            file.write_all(b"\n").unwrap();
            (None, Way::File(file), path)
        }
    };
    let line_bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    assert!(line_bytes > 0, "the first event did not come through");
    let (seen_in, seen) = bounded(events);
    let watched = path.clone();
    let watcher = thread::spawn("watcher", move || watch(&watched, line_bytes, events, &seen_in)).unwrap();
    pause(Duration::from_millis(50));
    let sent = send(way, &frames, line_bytes as usize);
    let _ = watcher.join();
    let mut samples = Samples::default();
    for (sent, seen) in sent.iter().zip(seen.try_iter()) {
        samples.add(seen.saturating_duration_since(*sent).as_secs_f64() * 1e3);
    }
    drop(running);
    samples
}

/// Sends each at its time; gives when its last byte was sent.
fn send(mut way: Way, frames: &[Vec<u8>], line_bytes: usize) -> Vec<Instant> {
    let mut line = vec![b'x'; line_bytes];
    line[line_bytes - 1] = b'\n';
    let begun = Instant::now();
    let mut sent = Vec::with_capacity(frames.len());
    for (number, frame) in frames.iter().enumerate() {
        let due = begun + EVERY * number as u32;
        pause(due.saturating_duration_since(Instant::now()));
        // Taken before the call: what it sends is on its way before it returns.
        let at = Instant::now();
        match &mut way {
            Way::File(file) => file.write_all(&line).unwrap(),
            Way::Socket(socket) => socket.write_all(frame).unwrap(),
        }
        sent.push(at);
    }
    sent
}

/// Says when each line came, woken by the kernel.
fn watch(path: &Path, line_bytes: u64, events: usize, seen: &Sender<Instant>) {
    let inotify = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&inotify, path, inotify::WatchFlags::MODIFY).unwrap();
    let file = File::open(path).unwrap();
    let (mut count, deadline) = (0, Instant::now() + LIMIT + EVERY * events as u32);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    while count < events && Instant::now() < deadline {
        let mut fds = [PollFd::new(&inotify, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
        let mut reader = inotify::Reader::new(&inotify, &mut buffer);
        while reader.next().is_ok() {}
        let lines = file.metadata().map_or(0, |meta| meta.len()) / line_bytes - 1;
        let now = Instant::now();
        while (count as u64) < lines {
            let _ = seen.try_send(now);
            count += 1;
        }
    }
}
