#!/usr/bin/env python3
"""A day of 24 hours in minutes, with faults, and then a count by a program that shares no code with the collector.

    tests/day/day.py target/release/audiohook-collector [--minutes 12] [--seed N]

It is Genesys Cloud (genesys.py), the source of events and of faults (plan.py) and the counter (count.py) at once, written
from the descriptions of the API and of the collector's formats alone. What lasts an hour in a day lasts 30 s in 12
minutes: the settings, the lives of tokens and channels, the outages. What is fixed in the collector stays as it is, such
as the 2 s of matching and the 45 s after which a silent WebSocket is given up, so a day should not be shorter than some
minutes.

Ends with one line, and with status 0 if every event is in the files once. Otherwise the status is 1, the first events
concerned are named, and the folder is kept.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import count
from genesys import CLIENT, Rule, Service, iso, now_ms
from plan import BACKUPS_ALL, TOPICS, Day

EVENTS_PER_MINUTE = 1500
# What must be in the files after everything is healed; and what may then still come, which must be nothing.
DEADLINE_S = 120
STOP_S_MAX = 10
DISK_SLOW_S = 1
# The collector leaves rows younger than this to their frames.
FRAME_AWAITED_S = 10


class Disk:
    """Syncs a file of its own all the time, so that a slow machine is not taken for a collector that hangs."""

    def __init__(self, folder):
        self.path, self.slow_s = folder / "disk", []
        threading.Thread(target=self.sync, daemon=True).start()

    def sync(self):
        with open(self.path, "wb", buffering=0) as probe:
            while True:
                began = time.monotonic()
                probe.write(b".")
                os.fdatasync(probe.fileno())
                took = time.monotonic() - began
                if took > DISK_SLOW_S:
                    self.slow_s.append((began, began + took))
                time.sleep(0.25)

    async def was_slow(self, since):
        """Whether a sync took long since then; one that has begun is waited for."""
        await asyncio.sleep(DISK_SLOW_S)
        return any(end > since for _, end in self.slow_s)


class Collector:
    """The process, and its settings: a day's, divided by the factor."""

    def __init__(self, binary, folder, backups, factor, overlap_s, start_back_s):
        self.binary, self.folder, self.process = binary, folder, None
        self.output = folder / "events.jsonl"
        self.log = open(folder / "collector.log", "ab")
        self.http_port = free_port()
        self.disk = Disk(folder)
        self.complaints, self.notes, self.starts_ms, self.lines_at_start = [], [], [], 0
        self.on_start = None
        (folder / "moved").mkdir()
        (folder / "topics.json").write_text(json.dumps({"topics": TOPICS}))
        self.settings = {
            "GENESYS_ENV": "mypurecloud.com", "GENESYS_CLIENT_ID": CLIENT[0], "GENESYS_CLIENT_SECRET": CLIENT[1],
            "TOPICS_FILE": str(folder / "topics.json"),
            "CATCH_UP_INTERVAL": seconds(60 / factor), "CATCH_UP_OVERLAP": seconds(overlap_s),
            "CATCH_UP_RATE": str(round(150 * factor)), "CATCH_UP_START": seconds(start_back_s),
            "RECONNECT_DELAY": seconds(5 / factor), "MAX_RECONNECT_DELAY": seconds(60 / factor),
            "OUTPUT_FILE": str(self.output), "MAX_FILE_SIZE": "1MiB", "BACKUP_COUNT": str(backups),
            "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(self.http_port), "LOG_FORMAT": "text",
        }

    def find(self, service):
        """Where Genesys Cloud is, once that is known."""
        address = f"http://127.0.0.1:{service.port}"
        self.settings |= {"GENESYS_LOGIN_URL": address, "GENESYS_API_URL": address}
        self.on_start = service.history_unreadable

    def start(self):
        self.lines_at_start = count.lines_in(self.folder)
        self.starts_ms.append(now_ms())
        self.on_start()
        self.note("started")
        self.process = subprocess.Popen([self.binary], env=self.settings, cwd=self.folder, stdout=self.log,
                                        stderr=subprocess.STDOUT)

    def note(self, text):
        """A line of our own in the collector's log, so that the two can be read together."""
        self.log.write(f"--- {iso(now_ms())} {text}\n".encode())
        self.log.flush()

    async def ended(self, limit_s):
        """Waits for the end of the process; one that takes too long is killed and complained about."""
        until = time.monotonic() + limit_s
        while self.process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.02)
        if self.process.poll() is None:
            self.complaints.append(f"still running {limit_s} s after SIGTERM")
            self.process.kill()
        return self.process.wait()

    async def terminate(self):
        """Status 1 says that not all of what was received could be written in time: right on a disk that stands still."""
        self.note("SIGTERM")
        began = time.monotonic()
        self.process.terminate()
        status = await self.ended(STOP_S_MAX)
        if status == 0:
            return
        what = f"{iso(now_ms())}: exit status {status} after SIGTERM"
        if status == 1 and await self.disk.was_slow(began - STOP_S_MAX):
            self.notes.append(f"{what}, on a slow disk")
        else:
            self.complaints.append(what)

    async def kill(self):
        self.note("kill -9")
        self.process.kill()
        await self.ended(STOP_S_MAX)

    def end(self):
        """Leaves no process, however this program ends."""
        if self.process and self.process.poll() is None:
            self.process.kill()

    async def suspend(self, duration_s):
        self.note(f"SIGSTOP for {duration_s:.1f} s")
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(duration_s)
        self.process.send_signal(signal.SIGCONT)
        self.note("SIGCONT")

    async def metrics(self):
        """The sums of all series of each name, without labels."""
        text = await asyncio.to_thread(fetch, f"http://127.0.0.1:{self.http_port}/metrics")
        sums = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0].removeprefix("audiohook_collector_")
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    async def audit(self, folder, start_ms):
        """As a user runs it, over the whole day and what was before it."""
        settings = self.settings | {"OUTPUT_FILE": str(folder / "events.jsonl"), "LOG_LEVEL": "error",
                                    "BACKUP_COUNT": str(BACKUPS_ALL)}
        command = [self.binary, "audit", "--json", "--from", iso(start_ms), "--to", iso(now_ms())]
        process = await asyncio.create_subprocess_exec(*command, env=settings, cwd=folder, stdout=subprocess.PIPE,
                                                       stderr=subprocess.PIPE)
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        return process.returncode, out.decode(), err.decode()


class Run:
    """One day, from the first start to the count."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        factor = 24 * 60 / options.minutes
        # 15 minutes of a day, but more than the 10 s for which rows wait for their frames in any case.
        overlap_s = max(900 / factor, 15)
        start_back_s = max(864_000 / factor, 600)
        events = options.events or round(EVENTS_PER_MINUTE * options.minutes)
        self.day = Day(options.seed, options.minutes, events, overlap_s, start_back_s, options.backups, options.move)
        self.day.faults = [fault for fault in self.day.faults if fault.kind not in options.without.split(",")]
        # The service's own whims come from a source of their own: how often it is asked depends on the machine.
        self.service = Service(random.Random(options.seed + 1), factor, open(folder / "requests.log", "w"))
        self.overlap_s = overlap_s
        self.collector = Collector(options.binary, folder, self.day.backups, factor, overlap_s, start_back_s)
        self.process_free = asyncio.Lock()
        self.moves_ms, self.faults_done, self.unmet = [], 0, []
        self.started_s = 0.0

    async def run(self):
        await self.service.start()
        self.collector.find(self.service)
        self.started_s = time.time() + 1
        for event in self.day.events:
            event.start(self.started_s)
        self.service.issue(self.day.events)
        self.collector.start()
        watch = asyncio.create_task(self.watch())
        faults = [asyncio.create_task(self.fault(one)) for one in self.day.faults]
        await self.issue_frames()
        await self.until(self.day.length_s)
        await self.heal(faults)
        await self.everything_there()
        wrong = await self.metrics_differ()
        watch.cancel()
        await self.collector.terminate()
        verdict = await self.verdict(wrong)
        await self.service.stop()
        return verdict

    async def until(self, offset_s):
        await asyncio.sleep(max(0, self.started_s + offset_s - time.time()))

    async def issue_frames(self):
        frames = []
        for event in self.day.events:
            if event.frame_delay_s is not None:
                sent = event.at + event.frame_delay_s
                frames += [(at, event) for at in [sent] + [sent + delay for delay in event.frame_repeats_s]]
        for at, event in sorted(frames, key=lambda frame: frame[0]):
            if self.started_s + at > time.time():
                await self.until(at)
            self.service.push(event)

    async def watch(self):
        """A collector that ends by itself is a finding; it is started again, as systemd would."""
        while True:
            await asyncio.sleep(0.2)
            if not self.process_free.locked() and self.collector.process.poll() is not None:
                self.collector.complaints.append(f"ended by itself with status {self.collector.process.returncode}")
                self.collector.start()

    # Faults

    async def fault(self, fault):
        await self.until(fault.at)
        if self.options.verbose:
            print(f"    {fault}", flush=True)
        print(f"{iso(now_ms())} --- {fault}", file=self.service.log, flush=True)
        self.faults_done += 1
        if fault.kind in ("kill", "terminate", "suspend", "restart"):
            async with self.process_free:
                await self.process_fault(fault)
        elif fault.kind == "file moved":
            self.move_file()
        else:
            await self.service_fault(fault)

    async def process_fault(self, fault):
        collector = self.collector
        if fault.kind == "suspend":
            return await collector.suspend(fault.seconds)
        if fault.kind == "kill":
            await collector.kill()
        else:
            await collector.terminate()
        if fault.kind == "restart":
            collector.start()
            cut = Rule(fault.call, "answers cut", "body")
            return await self.rule(cut if fault.detail == "cut" else Rule(fault.call, fault.detail, "2"), fault)
        await asyncio.sleep(fault.seconds)
        collector.start()

    def move_file(self):
        """As logrotate does it: whoever has the file open goes on writing into it for a while."""
        for _ in range(100):
            try:
                self.collector.output.rename(self.folder / "moved" / f"events.{len(self.moves_ms)}")
                self.moves_ms.append(now_ms())
                return
            except FileNotFoundError:
                # The collector rotates at this moment, or has written nothing since the last move.
                time.sleep(0.001)

    async def service_fault(self, fault):
        """An outage of calls that are made now and then only comes with what causes such a call."""
        service = self.service
        cause = {"login": "token revoked", "subscriptions": "token revoked", "channels": "channel gone",
                 "socket": "socket cut"}.get(fault.call, fault.kind)
        if cause == "token revoked":
            if fault.detail == "announced":
                service.tell_sockets("v2.system.token_revoked")
            service.revoke_tokens()
        elif cause == "channel gone":
            service.end_channels()
        elif cause == "socket cut":
            if fault.detail == "announced":
                service.tell_sockets("v2.system.socket_closing")
                await asyncio.sleep(1)
            service.cut_sockets(fault.detail if fault.detail in ("reset", "close") else "end")
        elif cause == "socket silent":
            return await self.silence(fault.seconds)
        if fault.kind in ("unavailable", "throttled", "cursors expire", "answers cut", "wrong dates"):
            every = {"answers cut": 3, "wrong dates": 5}.get(fault.kind, 1)
            await self.rule(Rule(fault.call, fault.kind, fault.detail, every), fault)

    async def rule(self, rule, fault):
        self.service.rules.append(rule)
        await asyncio.sleep(fault.seconds)
        self.service.rules.remove(rule)
        if not rule.met:
            self.unmet.append(fault)

    async def silence(self, duration_s):
        """Neither frames nor heartbeats nor pongs; TCP stays open."""
        silent = self.service.sockets()
        for one in silent:
            one.silent = True
        await asyncio.sleep(duration_s)
        for one in silent:
            one.writer.close()

    async def heal(self, faults):
        """Process faults end by themselves; whatever else is still broken ends here."""
        async with self.process_free:
            pass
        for one in faults:
            one.cancel()
        self.service.rules.clear()
        for one in self.service.sockets():
            if one.silent:
                one.writer.close()

    # The end

    async def everything_there(self):
        """Waits until the files have all that was issued, with a deadline; then for what must not come any more."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            await asyncio.sleep(2)
            try:
                if not self.count().lost:
                    break
            except FileNotFoundError:
                # The collector rotates at this moment.
                continue
        await asyncio.sleep(self.overlap_s + FRAME_AWAITED_S + 5)

    def count(self):
        records, self.wrong_lines = count.read(self.folder, self.moves_ms)
        return count.Count(self.day.events, records, self.service.was_unreadable, self.collector.starts_ms,
                           round(self.overlap_s * 1000))

    async def verdict(self, wrong):
        """The count, and what else is wrong."""
        verdict = self.count()
        wrong += self.wrong_lines + [f"the collector: {what}" for what in self.collector.complaints]
        wrong += [f"misuse of the API: {what}" for what in sorted(set(self.service.misuse))]
        return verdict, wrong + await self.audit_differs(verdict)

    async def metrics_differ(self):
        """Counts begin with the process: written = the lines since, and received = what became of it in sum."""
        sums = await self.collector.metrics()
        written = count.lines_in(self.folder) - self.collector.lines_at_start
        parts = [sums[f"events_{name}_total"] for name in ("written", "duplicate", "filtered", "unreadable")]
        wrong = []
        if parts[0] != written:
            wrong.append(f"/metrics: {parts[0]:.0f} written, but {written} lines since the start")
        if sum(parts) != sums["events_received_total"]:
            wrong.append(f"/metrics: received {sums['events_received_total']:.0f}, but "
                         f"written + duplicate + filtered + unreadable = {' + '.join(f'{part:.0f}' for part in parts)}")
        if parts[3]:
            wrong.append(f"/metrics: {parts[3]:.0f} unreadable, but none was issued")
        return wrong

    async def audit_differs(self, verdict):
        """The collector's own audit must agree, with moved files put back among the backups. At first it is refused."""
        folder = self.folder / "audited"
        folder.mkdir()
        present, moved = count.files(self.folder)
        newest_first = sorted((path for path in present + moved if path.stat().st_size), key=first_line_ms, reverse=True)
        for n, path in enumerate(newest_first):
            shutil.copy(path, folder / (f"events.jsonl.{n}" if n else "events.jsonl"))
        self.service.rules.append(first := Rule("aggregates", "unavailable"))
        asyncio.get_running_loop().call_later(1, self.service.rules.remove, first)
        status, out, err = await self.collector.audit(folder, min(event.row_ms for event in self.day.events) - 1000)
        try:
            found = json.loads(out)
        except ValueError:
            return [f"audit: status {status}, no JSON: {out[:300]!r} {err[-600:]!r}"]
        genesys = sum(each["genesys"] for each in found["definitions"])
        nothing_missing = status == 0 and found["complete"] and not found["missing"] and genesys == verdict.issued
        if nothing_missing and len(found["extra"]) <= len(verdict.allowed):
            return []
        return [f"audit: status {status}, complete {found['complete']}, {genesys} counted of {verdict.issued} issued, "
                f"{len(found['missing'])} missing, {len(found['extra'])} extra: {out[:1500]} {err[-600:]}"]


def seconds(value):
    return f"{value:.3f}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetch(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def first_line_ms(path):
    with open(path, encoding="utf-8") as lines:
        return json.loads(lines.readline())["received_at"]


def options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("binary", nargs="?", default=os.environ.get("COLLECTOR_BIN"), help="or COLLECTOR_BIN")
    parser.add_argument("--minutes", type=float, default=12, help="how long the 24 hours take")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--events", type=int, help=f"events of the day ({EVENTS_PER_MINUTE} per minute that it takes)")
    parser.add_argument("--backups", type=int, help="BACKUP_COUNT, drawn otherwise; 0: the file is moved instead")
    parser.add_argument("--move", action="store_true", help="moves the file in any case")
    parser.add_argument("--without", default="", help="kinds of faults to leave out, such as \"kill,file moved\"")
    parser.add_argument("--dir", type=Path, help="keeps the files here, whatever the outcome")
    parser.add_argument("--verbose", action="store_true", help="prints each fault as it comes")
    given = parser.parse_args()
    if not given.binary:
        parser.error("name the collector's binary, or set COLLECTOR_BIN")
    given.binary = str(Path(given.binary).resolve())
    return given


def main():
    given = options()
    folder = given.dir or Path(tempfile.mkdtemp(prefix="audiohook-day-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}: 24 h in {given.minutes:g} minutes, in {folder}", flush=True)
    run = Run(given, folder)
    print(f"{len(run.day.events)} events, {len(run.day.faults)} faults, BACKUP_COUNT={run.day.backups}", flush=True)
    try:
        verdict, wrong = asyncio.run(run.run())
    finally:
        run.collector.end()
    # An outage that nothing ran into proves nothing, so it does not count as a fault.
    notes = run.collector.notes + [f"met by no call: {fault}" for fault in run.unmet]
    for line in wrong + list(verdict.details()) + verdict.reasons() + notes:
        print(line)
    failed = bool(wrong) or not verdict.flawless
    faults = run.faults_done - len(run.unmet)
    print(f"seed {given.seed}: 24 h in {given.minutes:g} minutes, {verdict.issued} events, {faults} faults, "
          f"{verdict.summary()}" + (f"; FAILED, see {folder}" if failed else ""))
    if not failed and not given.dir:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
