"""What a day consists of: its events and its faults, drawn from a seed before anything starts.

Nothing here knows the collector. The limits come from what is promised about it: the history has an event within the overlap
of its time, the two sources' times differ by less than 2 s, like events in a chain span less than the overlap, and on one
source no two events have the same content and time.
"""

import random
import uuid
from dataclasses import dataclass, field

DAY_S = 24 * 3600
# Definitions: id → name. The last two are other events; RELAY-0007 is AudioHook's by its name alone.
DEFINITIONS = {f"AUDIOHOOK-{n:04}": f"AudioHook problem {n}" for n in range(1, 13)}
DEFINITIONS |= {"RELAY-0007": "Relay lost its AudioHook server", "EDGE-0001": "Edge offline", "TRUNK-0003": "Trunk failed"}
TOPICS = ["v2.operations.events." + name for name in ("AUDIOHOOK-*", "RELAY-0007", "EDGE-0001")]
# How busy each hour is: quiet nights, two peaks.
HOURS = [1, 1, 1, 1, 1, 2, 6, 14, 25, 30, 30, 25, 18, 20, 28, 30, 25, 18, 10, 6, 4, 3, 2, 1]
SHIFT_MS_MAX = 900
# More backups than a day can fill.
BACKUPS_ALL = 1000
FRAME_DELAY_LATE_S = (2, 20)


def is_audiohook(definition):
    """The contract's rule, for events whose entity type does not say it."""
    return definition.startswith("AUDIOHOOK-") or "audiohook" in DEFINITIONS[definition].lower()


@dataclass
class Event:
    """One event, as both sources give it. `at` is in seconds since the start; None stands for what does not come."""

    at: float
    # The six identifying fields: definition, entityId, conversationId, errorCode, previousValue, currentValue.
    content: tuple
    like: bool = False
    row_shift_ms: int = 0
    row_lag_s: float = 0.0
    frame_delay_s: float | None = 0.0
    frame_repeats_s: list = field(default_factory=list)
    # How the frame gives its time: ms, us, iso, text, s, or none.
    frame_time: str = "ms"
    # Filled in by the run: milliseconds since 1970, and when the frame was given to an open WebSocket.
    frame_ms: int | None = None
    row_ms: int = 0
    visible_ms: int = 0
    sent_ms: list = field(default_factory=list)

    def start(self, day_started_s):
        """Turns offsets into times, once it is known when the day starts."""
        ms = round((day_started_s + self.at) * 1000)
        self.row_ms = ms + self.row_shift_ms
        # The lag counts from the row's own time, and no row is there before its event.
        self.visible_ms = max(ms, self.row_ms + round(self.row_lag_s * 1000))
        self.frame_ms = {"none": None, "s": ms - ms % 1000}.get(self.frame_time, ms)


@dataclass
class Fault:
    """`call` is the kind of request it concerns, `detail` how it shows."""

    at: float
    kind: str
    seconds: float = 0.0
    call: str = ""
    detail: str = ""

    def __str__(self):
        words = [f"{self.at:7.1f} s", self.kind, self.call, self.detail, f"for {self.seconds:.1f} s" if self.seconds else ""]
        return " ".join(word for word in words if word)


class Day:
    """Draws everything. One instance is one seed."""

    def __init__(self, seed, minutes, count, overlap_s, start_back_s, backups=None, move=False):
        self.random = random.Random(seed)
        self.length_s = minutes * 60
        self.factor = DAY_S / self.length_s
        self.overlap_s = overlap_s
        # Either the collector rotates, or logrotate alone does, which is the fault "file moved".
        drawn = self.random.choice([0, BACKUPS_ALL])
        self.backups = drawn if backups is None else backups
        self.moves = self.random.choice([True, False]) or move or self.backups == 0
        self.integrations = [self.uuid() for _ in range(6)]
        self.events = self.draw_events(count, start_back_s)
        self.faults = sorted(self.draw_faults(minutes), key=lambda fault: fault.at)

    def uuid(self):
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    # Events

    def draw_events(self, count, start_back_s):
        """Three storms of an eighth each, chains, some that recur, some older than the first start; the rest single."""
        storms = [event for _ in range(3) for event in self.storm(count // 8)]
        chains = []
        while len(chains) < count // 8:
            chains += self.chain(self.moment(), self.random.randint(2, 12))
        recurring = [event for _ in range(4) for event in self.recurring()]
        older = [self.single(-self.random.uniform(5, 0.8 * start_back_s)) for _ in range(count // 100)]
        for event in older:
            event.frame_delay_s = None
        rest = count - len(storms) - len(chains) - len(recurring) - len(older)
        events = storms + chains + recurring + older + [self.single(self.moment()) for _ in range(rest)]
        self.keep_times_apart(events)
        return sorted(events, key=lambda event: event.at)

    def moment(self):
        hour = self.random.choices(range(24), HOURS)[0]
        return (hour + self.random.random()) / 24 * self.length_s

    def content(self, conversation=True):
        """Absent values are "": the contract treats absent, null and empty alike."""
        rnd = self.random
        weights = [8] * 12 + [2, 2, 2]
        definition = rnd.choices(list(DEFINITIONS), weights)[0]
        error = rnd.choice(["", "1009", "timeout", "ünïcode \"quoted\" \\ 漢字"])
        return (definition, rnd.choice(self.integrations), self.uuid() if conversation else "", error,
                rnd.choice(["", "CONNECTED"]), rnd.choice(["", "DISCONNECTED", "FAILED"]))

    def single(self, at, content=None):
        """An event with everything that may befall it on either source."""
        rnd = self.random
        event = Event(at, content or self.content())
        if rnd.random() < 0.3:
            event.row_shift_ms = rnd.randint(-SHIFT_MS_MAX, SHIFT_MS_MAX)
        # Mostly prompt rows, some as late as is allowed.
        late = rnd.random() < 0.1
        event.row_lag_s = rnd.uniform(0, 0.9 * self.overlap_s) if late else rnd.uniform(0, 0.2 * self.overlap_s)
        fate = rnd.random()
        if fate < 0.15:
            event.frame_delay_s = None
        elif fate < 0.18:
            event.frame_delay_s = rnd.uniform(*FRAME_DELAY_LATE_S)
        else:
            event.frame_delay_s = rnd.uniform(0, 0.3)
        event.frame_time = rnd.choices(["ms", "us", "iso", "text", "s", "none"], [80, 5, 8, 4, 2, 0.5])[0]
        if event.frame_time == "s":
            # A frame in seconds is itself up to a second off.
            event.row_shift_ms = 0
        # A frame without a time that is repeated counts as two events, so it is not drawn.
        if event.frame_time != "none" and rnd.random() < 0.04:
            event.frame_repeats_s = [rnd.uniform(0, 5) for _ in range(rnd.randint(1, 2))]
        return event

    def alike(self, times, content):
        """Events that differ in nothing but their time. None gives it in seconds: two could then have the same one."""
        events = [self.single(at, content) for at in times]
        for event in events:
            event.like = True
            if event.frame_time == "s":
                event.frame_time = "ms"
        return events

    def chain(self, at, count):
        """Like events close together. The chain spans less than the overlap, as is asked of it."""
        step = self.random.choice([0.05, 0.3, 1, 2])
        times, longest = [at], 0.6 * self.overlap_s
        while len(times) < count and times[-1] + step - at < longest:
            times.append(times[-1] + step * self.random.uniform(0.5, 1))
        return self.alike(times, self.content())

    def storm(self, count):
        """Ten minutes of a day in which everything fails: thousands of events, a fifth of them alike in small groups."""
        start = self.moment()
        length = min(max(600 / self.factor, 3), 0.6 * self.overlap_s)
        events = []
        while len(events) < count:
            size = self.random.randint(3, 12) if self.random.random() < 0.03 else 1
            times = sorted(start + self.random.uniform(0, length) for _ in range(size))
            content = self.content()
            events += self.alike(times, content) if size > 1 else [self.single(times[0], content)]
        return events

    def recurring(self):
        """One integration that fails the same way all day, with nothing but the time to tell its events apart."""
        content, times, at = self.content(conversation=False), [], self.random.uniform(0, 60)
        while at < self.length_s:
            times.append(at)
            at += self.random.uniform(15, 90)
        return self.alike(times, content)

    @staticmethod
    def keep_times_apart(events):
        """On one source no two events have the same content and time; whole milliseconds would make some so."""
        taken = set()
        for event in events:
            event.at = round(event.at, 3)
            while {(event.content, "frame", round(event.at * 1000)),
                   (event.content, "row", round(event.at * 1000) + event.row_shift_ms)} & taken:
                event.at = round(event.at + 0.001, 3)
            taken.add((event.content, "frame", round(event.at * 1000)))
            taken.add((event.content, "row", round(event.at * 1000) + event.row_shift_ms))

    # Faults

    def draw_faults(self, minutes):
        """The lists below are those of 12 minutes; a shorter day has a part of them, drawn, and a longer one more."""
        service, process = (self.share_of(kinds, minutes / 12) for kinds in (self.service_faults, self.process_faults))
        for fault in service:
            fault.at = self.random.uniform(0.04, 0.92) * self.length_s
        return service + self.placed(process)

    def share_of(self, kinds, share):
        drawn = kinds()
        wanted = max(1, round(len(drawn) * share))
        self.random.shuffle(drawn)
        while len(drawn) < wanted:
            drawn += kinds()
        return drawn[:wanted]

    def outage_s(self):
        """One to fifteen minutes of the day, but a second at least."""
        return max(1, self.random.uniform(60, 900) / self.factor)

    def service_faults(self):
        calls = ["login", "channels", "subscriptions", "history", "history", "history", "socket"]
        faults = [Fault(0, "unavailable", self.outage_s(), call) for call in calls]
        faults += [Fault(0, "throttled", self.outage_s(), call, str(self.random.randint(1, 4)))
                   for call in ("login", "channels", "subscriptions", "history", "history")]
        faults += [Fault(0, "socket cut", detail=how) for how in ("reset", "end", "close", "announced") * 2]
        faults += [Fault(0, "socket silent", self.random.uniform(20, 60)) for _ in range(2)]
        faults += [Fault(0, "token revoked", detail=how) for how in ("silently", "announced") * 2]
        faults += [Fault(0, "cursors expire", self.outage_s()) for _ in range(3)]
        faults += [Fault(0, "answers cut", self.outage_s(), detail=how) for how in ("body", "head", "body")]
        faults += [Fault(0, "wrong dates", self.outage_s(), detail=str(self.random.choice([-1, 1]) * seconds))
                   for seconds in (3600, 86400, 120)]
        faults += [Fault(0, "channel gone") for _ in range(3)]
        return faults

    def process_faults(self):
        """Definitions and topics are asked for at a start, so their faults come with one."""
        down = self.random.uniform
        faults = [Fault(0, "kill", down(0.2, 8)) for _ in range(4)]
        faults += [Fault(0, "terminate", down(0.2, 8)) for _ in range(3)]
        faults += [Fault(0, "suspend", down(10, 20)) for _ in range(3)]
        faults += [Fault(0, "restart", self.outage_s(), call, how) for call, how in (
            ("definitions", "unavailable"), ("definitions", "empty"), ("definitions", "null"), ("definitions", "cut"),
            ("topics", "unavailable"), ("definitions", "throttled"))]
        return faults

    def placed(self, process):
        """One process fault to a slot. The file is moved before a slot that has no restart, and after the last one.

        Records of the last minutes whose file was moved away may be written again after a restart. This keeps them few.
        """
        slot = 0.9 * self.length_s / len(process)
        moves = []
        for n, fault in enumerate(process):
            fault.at = (n + self.random.uniform(0.05, 0.2)) * slot + 0.03 * self.length_s
            if n + 1 == len(process) or process[n + 1].kind == "suspend":
                moves.append(Fault((n + self.random.uniform(0.5, 0.7)) * slot + 0.03 * self.length_s, "file moved"))
        return process + (moves if self.moves else [])
