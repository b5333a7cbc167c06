"""The count at the end: what was issued against what is in the files, event by event.

An event is known by its content and its time. Records are given to events one to one, as many as possible; what is left
over on either side is lost, or there twice, or foreign. What docs/promises.md allows under "Where it ends" is listed
apart.
"""

import heapq
import json
import re
from collections import defaultdict
from dataclasses import dataclass

from genesys import from_iso, iso
from plan import is_audiohook

# Times of one event may differ by this between the sources, so one may stand under a like one's time.
TOLERANCE_MS = 2000
# An event without a time is known by its receipt; its row may be up to two minutes older.
RECEIPT_MS = 120_000
# A restarted collector knows what the files hold, of the overlap and four minutes.
REMEMBERED_MS = 240_000
FIELDS = ("event_id", "entity_id", "conversation_id", "error_code", "previous_value", "current_value")


@dataclass
class Record:
    """One line of a file, and when that file was moved away, if it was."""

    place: str
    moved_ms: int | None
    content: tuple
    ms: int
    received_ms: int
    source: str
    untimed: bool

    def __str__(self):
        time_of_its_own = " untimed" if self.untimed else ""
        return f"{iso(self.ms)} {self.source}{time_of_its_own}, received {iso(self.received_ms)}, {self.place}"


def files(folder):
    """OUTPUT_FILE and its backups, and what was moved away; nothing else beside them is a file of events."""
    mine = [path for path in folder.iterdir() if re.fullmatch(r"events\.jsonl(\.\d+)?", path.name)]
    return sorted(mine), sorted((folder / "moved").iterdir())


def lines_in(folder):
    return sum(path.read_bytes().count(b"\n") for group in files(folder) for path in group)


def read(folder, moves_ms):
    """All records, and what is wrong with lines that are none. Moved files are numbered as the moves are."""
    records, wrong = [], []
    present, moved = files(folder)
    for path in present + moved:
        data = path.read_bytes()
        moved_ms = moves_ms[int(path.suffix[1:])] if path in moved else None
        if data and not data.endswith(b"\n"):
            wrong.append(f"{path.name}: the last line has no end")
        for number, line in enumerate(data.splitlines(), 1):
            try:
                records.append(record(json.loads(line), f"{path.name}:{number}", moved_ms))
            except (ValueError, KeyError, TypeError) as error:
                wrong.append(f"{path.name}:{number}: no record ({error!r}): {line[:200]!r}")
    return records, wrong


def record(line, place, moved_ms):
    content = tuple(line[name] or "" for name in FIELDS)
    raw = line["raw_event"]
    untimed = "timestamp" not in raw and "dateCreated" not in raw
    times = from_iso(line["timestamp"]), from_iso(line["received_at"])
    return Record(place, moved_ms, content, *times, line["source"], untimed)


def span_of(event):
    """The times under which an event may stand: its own exactly, or with a tolerance where others are like it."""
    times = [event.row_ms]
    if event.frame_ms is not None:
        times.append(event.frame_ms)
    elif event.sent_ms:
        # A receipt: from when it was sent to when it was read, which takes longest where the process was suspended.
        times += [event.sent_ms[0] - TOLERANCE_MS, event.sent_ms[-1] + RECEIPT_MS]
    margin = TOLERANCE_MS if event.like else 0
    return min(times) - margin, max(times) + margin


def pair(events, records):
    """One to one and as many as possible: each record, in the order of time, goes to the event that ends first."""
    spans = sorted(((*span_of(event), n) for n, event in enumerate(events)))
    waiting, left, lost, first = [], [], [], 0
    for one in sorted(records, key=lambda one: one.ms):
        while first < len(spans) and spans[first][0] <= one.ms:
            heapq.heappush(waiting, spans[first][1:])
            first += 1
        while waiting and waiting[0][0] < one.ms:
            lost.append(events[heapq.heappop(waiting)[1]])
        if waiting:
            heapq.heappop(waiting)
        else:
            left.append(one)
    lost += [events[n] for _, n in waiting] + [events[n] for _, _, n in spans[first:]]
    return lost, left


class Count:
    """The verdict on one day."""

    def __init__(self, events, records, was_unreadable, restarts_ms, overlap_ms):
        self.was_unreadable = was_unreadable
        self.restarts_ms, self.overlap_ms = restarts_ms, overlap_ms
        self.lost, self.twice, self.foreign, self.allowed = [], [], [], []
        issued, found = defaultdict(list), defaultdict(list)
        for event in events:
            if is_audiohook(event.content[0]):
                issued[event.content].append(event)
        for one in records:
            found[one.content].append(one)
        self.issued = sum(map(len, issued.values()))
        for content in issued.keys() | found.keys():
            self.judge(issued[content], found[content])

    def judge(self, events, records):
        """One content. A source gives no two like events the same time, so there such records are one event's."""
        seen, distinct = set(), []
        for one in records:
            same = (one.ms, one.source)
            if same in seen and not self.excused(one, events, records):
                self.twice.append((one, events))
            elif same not in seen:
                distinct.append(one)
            seen.add(same)
        lost, left = pair(events, distinct)
        self.lost += [(event, records) for event in lost]
        for one in left:
            if len(records) <= len(events) or not events:
                # There is an event for it, but not at this time; or none at all.
                self.foreign.append((one, events))
            elif not self.excused(one, events, records):
                self.twice.append((one, events))

    def excused(self, one, events, records):
        """Whether docs/promises.md names this as a limit. Each such record is listed apart with the reason."""
        reason = (self.moved_away(records) or self.late_while_unreadable(events, records)
                  or self.without_time(events))
        if reason:
            self.allowed.append((reason, one))
        return bool(reason)

    @staticmethod
    def without_time(events):
        """A frame without a time, among like events: rather a duplicate than a loss."""
        untimed = any(event.frame_ms is None and event.sent_ms for event in events)
        return "an untimed one among like events" if untimed and len(events) > 1 else None

    def late_while_unreadable(self, events, records):
        """A frame after its row, while the history cannot be read, is written again unless the times are equal."""
        if not any(one.source == "websocket" and self.was_unreadable(one.received_ms) for one in records):
            return None
        for event in events:
            differs = event.frame_ms != event.row_ms or len(events) > 1
            if differs and any(sent >= event.visible_ms and self.was_unreadable(sent) for sent in event.sent_ms):
                return "a late frame while the history could not be read"
        return None

    def moved_away(self, records):
        """What a restarted collector could not know: a record of the last minutes whose file had been moved away."""
        for restart in self.restarts_ms:
            reach = restart - self.overlap_ms - REMEMBERED_MS
            gone = any(one.moved_ms and one.moved_ms < restart and reach <= one.ms for one in records)
            if gone and any(one.received_ms >= restart for one in records):
                return "in a file that was moved away before a restart"
        return None

    @property
    def flawless(self):
        return not (self.lost or self.twice or self.foreign)

    def summary(self):
        words = f"{len(self.lost)} lost, {len(self.twice)} twice"
        return words + (f", {len(self.foreign)} foreign" if self.foreign else "")

    def reasons(self):
        """What the limits allowed, by reason."""
        counts = defaultdict(int)
        for reason, _ in self.allowed:
            counts[reason] += 1
        return [f"allowed: {count} × {reason}" for reason, count in sorted(counts.items())]

    def details(self, limit=8):
        """The first events concerned, with everything that is known about each."""
        for name, those in (("twice", self.twice), ("foreign", self.foreign)):
            for one, events in sorted(those, key=lambda each: each[0].ms)[:limit]:
                yield f"{name}: {one.content}\n    record {one}"
                yield from (f"    issued {describe(event)}" for event in events[:limit])
        for event, records in sorted(self.lost, key=lambda each: each[0].at)[:limit]:
            yield f"lost: {event.content}\n    issued {describe(event)}"
            yield from (f"    record {one}" for one in records[:limit])


def describe(event):
    frame = "none" if event.frame_ms is None else iso(event.frame_ms)
    sent = ", ".join(map(iso, event.sent_ms)) or "never"
    return (f"at {event.at:.3f} s; row {iso(event.row_ms)}, there from {iso(event.visible_ms)}; "
            f"frame's time {frame} ({event.frame_time}), sent {sent}")
