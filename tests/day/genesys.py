"""A fake Genesys Cloud: login, definitions, channels, WebSocket, history and counts, on one port of this machine.

Written from the description of the public API alone. It shares nothing with the simulator that the collector brings.
"""

import asyncio
import base64
import bisect
import calendar
import hashlib
import json
import socket
import struct
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate

from plan import DEFINITIONS

CLIENT = ("day-client", "day-secret: with=signs%")
TOPIC = "v2.operations.events."
WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAGE_SIZE_MAX = 200
TOPICS_MAX = 1000
CHANNELS_MAX = 20
STATUS = {200: "OK", 101: "Switching Protocols", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
          405: "Method Not Allowed", 429: "Too Many Requests", 503: "Service Unavailable"}


def now_ms():
    return round(time.time() * 1000)


def iso(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"


def from_iso(text):
    """Milliseconds of an RFC 3339 time in UTC, with or without a fraction."""
    text = text.removesuffix("Z")
    whole, _, fraction = text.partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 1000 + int((fraction + "000")[:3])


@dataclass
class Request:
    method: str
    path: str
    query: dict
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)

    def call(self):
        """The kind of call, as faults name it."""
        if self.path == "/oauth/token":
            return "login"
        for prefix, name in (("/channels/", "socket"), ("/api/v2/usage/events/definitions", "definitions"),
                             ("/api/v2/usage/events/query", "history"), ("/api/v2/usage/events/aggregates", "aggregates"),
                             ("/api/v2/notifications/availabletopics", "topics")):
            if self.path.startswith(prefix):
                return name
        return "subscriptions" if self.path.endswith("/subscriptions") else "channels"


@dataclass
class Answer:
    status: int
    body: object = None
    headers: dict = field(default_factory=dict)
    # How it reaches the client: whole, or cut within the head or the body. A wrong Date is off by so many seconds.
    cut: str = ""
    date_off_s: int = 0
    # The last page of a read.
    last: bool = False

    @staticmethod
    def error(status, code, **headers):
        body = {"message": f"{code} (by the day)", "code": code, "status": status, "contextId": str(uuid.uuid4()),
                "details": [], "errors": []}
        return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def bytes(self, head_only):
        body = self.body
        if not isinstance(body, bytes):
            body = b"" if body is None else json.dumps(body).encode()
        date = formatdate(time.time() + self.date_off_s, usegmt=True)
        lines = [f"HTTP/1.1 {self.status} {STATUS[self.status]}", f"Date: {date}", "Content-Type: application/json",
                 f"Content-Length: {len(body)}", f"ININ-Correlation-Id: {uuid.uuid4()}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if self.cut:
            return head[:len(head) // 2] if self.cut == "head" else head + body[:len(body) // 2]
        return head if head_only else head + body


@dataclass
class Rule:
    """One fault on the calls of a kind, while it lasts. `every` leaves the others alone."""

    call: str
    kind: str
    detail: str = ""
    every: int = 1
    asked: int = 0
    met: int = 0

    def meets(self, request):
        if self.call not in ("", request.call()):
            return False
        self.asked += 1
        if self.asked % self.every:
            return False
        self.met += 1
        return True


@dataclass
class Channel:
    id: str
    token: str
    expires: float
    topics: set = field(default_factory=set)
    socket: object = None
    used: float = field(default_factory=time.time)


class WebSocket:
    """The server's end of one connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        # A silent one stays open and neither answers nor sends.
        self.silent = False

    def send(self, payload, opcode=1):
        if self.silent or self.writer.is_closing():
            return False
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        length = len(data)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([length])
        else:
            head += struct.pack("!BH", 126, length) if length < 65536 else struct.pack("!BQ", 127, length)
        self.writer.write(head + data)
        return True

    def close(self, how):
        """`close` says so first, `end` only ends the connection, `reset` resets it."""
        if how == "close":
            self.send(struct.pack("!H", 1001) + b"idle timeout", 8)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.silent = True
        self.writer.close()

    async def serve(self):
        """Answers pings until the client goes."""
        while True:
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length > 125:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            mask = await self.reader.readexactly(4)
            data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(await self.reader.readexactly(length)))
            opcode = first & 15
            if opcode == 8:
                self.send(data[:2], 8)
                return
            if opcode == 9:
                self.send(data, 10)
            elif opcode == 1 and json.loads(data).get("message") == "ping":
                self.send({"topicName": "channel.metadata", "eventBody": {"message": "pong"}})


class Service:
    """What the organization has, and the rules by which it is given at the moment."""

    def __init__(self, draw, factor, log):
        self.draw = draw
        self.log = log
        # A client's token may live for as little as 5 minutes; this one's lives for six hours of the day.
        self.token_life_s = 6 * 3600 / factor
        self.channel_life_s = 24 * 3600 / factor
        self.heartbeat_s = max(30 / factor, 1)
        self.end_included = draw.random() < 0.5
        self.tokens, self.channels, self.rules = {}, {}, []
        self.rows, self.coming = [], []
        self.unreadable, self.readable, self.read_to_end = [], True, False
        self.misuse, self.connected = [], set()
        self.server = self.port = self.beating = None

    async def start(self):
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        self.beating = asyncio.create_task(self.heartbeats())

    async def stop(self):
        self.server.close()
        self.beating.cancel()
        for writer in self.connected:
            writer.transport.abort()
        await asyncio.sleep(0.1)

    def history_unreadable(self):
        """From now on the collector cannot be expected to know what the history has, until a read of it ends well."""
        self.read_to_end = False
        if self.readable:
            self.readable = False
            self.unreadable.append([now_ms(), None])

    def history_asked(self, first_page, last_page):
        """A read has ended well once the next one begins: until then its rows may be waiting for the disk."""
        if first_page and self.read_to_end and not self.readable:
            self.readable = True
            self.unreadable[-1][1] = now_ms()
        self.read_to_end = last_page

    def was_unreadable(self, ms, margin_ms=1500):
        """The margin is for an answer that is on its way, and for what the collector has yet to do with it."""
        return any(start - margin_ms <= ms <= (end or ms) + margin_ms for start, end in self.unreadable)

    # Events

    def issue(self, events):
        """All rows of the day, which are there from their time on."""
        self.coming = sorted(((event.visible_ms, n, event) for n, event in enumerate(events)), reverse=True)

    def ripen(self):
        """Rows whose time has come, however late this program is."""
        now = now_ms()
        while self.coming and self.coming[-1][0] <= now:
            _, number, event = self.coming.pop()
            bisect.insort(self.rows, (event.row_ms, number, event.content[0], self.row(event)))

    def maybe(self, value):
        """An absent value: left out, null or empty."""
        return value or self.draw.choice([None, ""])

    def row(self, event):
        definition, entity, conversation, error, previous, current = event.content
        row = {"eventDefinition": {"id": definition, "selfUri": f"/api/v2/usage/events/definitions/{definition}"},
               "entityId": entity, "entityName": f"Integration {entity[:4]}", "dateCreated": iso(event.row_ms),
               "errorCode": self.maybe(error), "previousValue": self.maybe(previous), "currentValue": self.maybe(current),
               "entityVersion": "7", "phoneNumber": "+3215550100"}
        if conversation:
            row["conversation"] = {"id": conversation, "selfUri": f"/api/v2/conversations/{conversation}"}
        return json.dumps({name: value for name, value in row.items() if value is not None}).encode()

    def frame(self, event):
        definition, entity, conversation, error, previous, current = event.content
        body = {"eventEntity": {"id": definition, "name": DEFINITIONS[definition], "description": "drawn"},
                "entityId": entity, "entityName": f"Integration {entity[:4]}", "entityType": "INTEGRATION",
                "conversationId": self.maybe(conversation), "errorCode": self.maybe(error),
                "previousValue": self.maybe(previous), "currentValue": self.maybe(current), "version": "7"}
        ms = event.frame_ms
        if ms is not None:
            forms = {"ms": ms, "us": ms * 1000, "iso": iso(ms), "text": str(ms), "s": ms // 1000}
            body["timestamp"] = forms[event.frame_time]
        return {"topicName": TOPIC + definition, "version": "2", "eventBody": body,
                "metadata": {"CorrelationId": str(uuid.uuid4())}}

    def push(self, event):
        """To every channel that has the topic and is alive. Nothing is queued for the others."""
        for channel in self.channels.values():
            alive = channel.socket and self.token_alive(channel.token)
            if alive and TOPIC + event.content[0] in channel.topics and channel.socket.send(self.frame(event)):
                event.sent_ms.append(now_ms())

    async def heartbeats(self):
        while True:
            await asyncio.sleep(self.heartbeat_s)
            for channel in list(self.channels.values()):
                if time.time() > channel.expires:
                    self.end_channel(channel)
                elif channel.socket:
                    beat = {"topicName": "channel.metadata", "eventBody": {"message": "WebSocket Heartbeat"}}
                    channel.socket.send(beat)

    def end_channel(self, channel):
        self.channels.pop(channel.id, None)
        if channel.socket:
            channel.socket.send({"result": "404", "message": "channel not found"})
            channel.socket.close("close")

    # Faults

    def sockets(self):
        return [channel.socket for channel in self.channels.values() if channel.socket]

    def cut_sockets(self, how):
        for one in self.sockets():
            one.close(how)

    def tell_sockets(self, topic):
        for one in self.sockets():
            one.send({"topicName": topic, "eventBody": {}})

    def revoke_tokens(self):
        self.tokens.clear()

    def end_channels(self):
        for channel in list(self.channels.values()):
            self.end_channel(channel)

    def token_alive(self, token):
        return self.tokens.get(token, 0) > time.time()

    def answer_by_rule(self, request):
        """The answer of the first rule that concerns this request, if any; else what happens to the true answer."""
        changes = {}
        for rule in self.rules:
            if rule.kind == "cursors expire" and "after" not in request.query or not rule.meets(request):
                continue
            if rule.kind == "unavailable":
                return Answer.error(503, "service.unavailable"), {}
            if rule.kind == "throttled":
                return Answer.error(429, "too.many.requests.rate.limit.exceeded", Retry_After=rule.detail), {}
            if rule.kind == "cursors expire":
                return Answer.error(400, "cursor.expired"), {}
            if rule.kind in ("empty", "null"):
                return Answer(200, {"entities": [] if rule.kind == "empty" else None}), {}
            if rule.kind == "answers cut":
                changes["cut"] = rule.detail
            if rule.kind == "wrong dates":
                changes["date_off_s"] = int(rule.detail)
        return None, changes

    # HTTP

    async def connection(self, reader, writer):
        """One connection, which may be kept for many requests and may become a WebSocket."""
        self.connected.add(writer)
        try:
            while request := await self.read_request(reader):
                answer, changes = self.answer_by_rule(request)
                answer = answer or self.answer(request)
                if answer.status == 101:
                    await self.upgraded(request, answer, reader, writer)
                    return
                for name, value in changes.items():
                    setattr(answer, name, value)
                self.note(request, answer)
                writer.write(answer.bytes(request.method == "HEAD"))
                await writer.drain()
                if answer.cut:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connected.discard(writer)
            writer.close()

    async def read_request(self, reader):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode().rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, parts.path, query, headers, body)

    def note(self, request, answer):
        """The log of requests; and whether the history can be read, which the count must know."""
        call = request.call()
        words = [iso(now_ms()), request.method, request.path, str(answer.status)]
        if answer.cut:
            words.append(f"cut:{answer.cut}")
        if answer.date_off_s:
            words.append(f"date:{answer.date_off_s:+}")
        if call in ("history", "aggregates"):
            words += [request.json().get("interval", "?"), "next page" if "after" in request.query else ""]
        if call == "history" and isinstance(answer.body, bytes):
            words.append(f"{answer.body.count(b'dateCreated')} rows")
        print(" ".join(word for word in words if word), file=self.log, flush=True)
        failed = answer.status >= 400 or answer.cut
        if failed and call in ("history", "login"):
            self.history_unreadable()
        elif call == "history":
            self.history_asked("after" not in request.query, answer.last)

    def answer(self, request):
        """What a well service says."""
        call = request.call()
        if call == "login":
            return self.login(request)
        if call == "socket":
            return self.handshake(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ").removeprefix("bearer ")
        if not self.token_alive(token):
            codes = ["bad.credentials", "credentials.expired", "authentication.required"]
            return Answer.error(401, self.draw.choice(codes))
        if call == "definitions":
            return Answer(200, {"entities": [{"id": name, "name": text, "description": f"{text}, described"}
                                             for name, text in DEFINITIONS.items()]})
        if call == "topics":
            return Answer(200, {"entities": [{"id": TOPIC + "{id}", "transports": ["All"]},
                                             {"id": "v2.users.{id}.presence", "transports": ["Websocket"]}]})
        if call == "history":
            return self.history(request)
        if call == "aggregates":
            return self.aggregates(request)
        return self.subscriptions(request, token) if call == "subscriptions" else self.channel(request, token)

    def misused(self, what):
        self.misuse.append(what)
        return Answer.error(400, "bad.request")

    def login(self, request):
        expected = base64.b64encode(":".join(CLIENT).encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            self.misuse.append("login with other credentials")
            return Answer(401, {"error": "invalid_client", "description": "client not found", "error_description": "no"})
        if urllib.parse.parse_qs(request.body.decode()) != {"grant_type": ["client_credentials"]}:
            return self.misused(f"login with the form {request.body!r}")
        token = str(uuid.uuid4())
        self.tokens[token] = time.time() + self.token_life_s
        return Answer(200, {"access_token": token, "token_type": "bearer", "expires_in": max(1, int(self.token_life_s))})

    # Channels

    def channel(self, request, token):
        if request.path == "/api/v2/notifications/channels":
            if request.method == "POST":
                return self.new_channel(token)
            if request.method == "GET":
                return Answer(200, {"entities": [{"expires": iso(round(one.expires * 1000))}
                                                 for one in self.channels.values()]})
        if request.path.startswith("/api/v2/notifications/channels/") and request.method == "HEAD":
            there = request.path.rsplit("/", 1)[1] in self.channels
            return Answer(200) if there else Answer.error(404, "not.found")
        self.misuse.append(f"{request.method} {request.path}")
        return Answer.error(404, "not.found")

    def new_channel(self, token):
        if len(self.channels) >= CHANNELS_MAX:
            self.end_channel(min(self.channels.values(), key=lambda one: (one.socket is not None, one.used)))
        channel = Channel(str(uuid.uuid4()), token, time.time() + self.channel_life_s)
        self.channels[channel.id] = channel
        return Answer(200, {"id": channel.id, "connectUri": f"ws://127.0.0.1:{self.port}/channels/{channel.id}",
                            "expires": iso(round(channel.expires * 1000))})

    def subscriptions(self, request, token):
        channel = self.channels.get(request.path.split("/")[-2])
        if not channel:
            return Answer.error(404, "not.found")
        if request.method == "GET":
            return Answer(200, {"entities": [{"id": topic} for topic in sorted(channel.topics)]})
        if request.method == "DELETE":
            channel.topics.clear()
            return Answer(200)
        asked = request.json()
        if not isinstance(asked, list) or len(asked) > TOPICS_MAX:
            return self.misused("subscriptions that are not a list of at most 1,000")
        asked = [one["id"] for one in asked]
        known = {topic for topic in asked if topic.startswith(TOPIC) and topic.removeprefix(TOPIC) in DEFINITIONS}
        channel.topics = known | (channel.topics if request.method == "POST" else set())
        channel.token, channel.expires, channel.used = token, time.time() + self.channel_life_s, time.time()
        return Answer(200, {"entities": [
            {"id": topic, "state": "Permitted"} if topic in known else
            {"id": topic, "state": "Rejected", "rejectionReason": "topic not found"} for topic in asked]})

    def handshake(self, request):
        channel = self.channels.get(request.path.rsplit("/", 1)[1])
        if not channel:
            return Answer.error(404, "not.found")
        digest = hashlib.sha1(request.headers["sec-websocket-key"].encode() + WEBSOCKET_KEY).digest()
        return Answer(101, None, {"Upgrade": "websocket", "Connection": "Upgrade",
                                  "Sec-WebSocket-Accept": base64.b64encode(digest).decode()})

    async def upgraded(self, request, answer, reader, writer):
        """One WebSocket per channel: a second one ends the first."""
        channel = self.channels[request.path.rsplit("/", 1)[1]]
        self.note(request, answer)
        lines = [f"HTTP/1.1 101 {STATUS[101]}"] + [f"{name}: {value}" for name, value in answer.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        if channel.socket:
            channel.socket.close("close")
        mine = channel.socket = WebSocket(reader, writer)
        try:
            await mine.serve()
        finally:
            print(iso(now_ms()), "socket ended", file=self.log, flush=True)
            if channel.socket is mine:
                channel.socket = None

    # History

    def span(self, request):
        """The rows of an interval. Whether its end belongs to it is not documented, so that is drawn."""
        start, end = (from_iso(part) for part in request.json()["interval"].split("/"))
        self.ripen()
        first = bisect.bisect_left(self.rows, (start,))
        last = bisect.bisect_left(self.rows, (end + 1 if self.end_included else end,))
        return self.rows[first:last]

    def history(self, request):
        """A page. The cursor names the last row that was given, so late rows neither move nor repeat others."""
        asked = request.json()
        size = int(request.query.get("pageSize", 25))
        if request.method != "POST" or not 1 <= size <= PAGE_SIZE_MAX or "before" in request.query:
            return self.misused(f"{request.method} history with {request.query}")
        rows = self.span(request)
        if asked.get("eventDefinitionIds"):
            wanted = set(asked["eventDefinitionIds"])
            rows = [row for row in rows if row[2] in wanted]
        if asked.get("sortOrder", "DESC") == "DESC":
            rows.reverse()
        key = (lambda row: (row[0], row[1])) if asked.get("sortOrder") == "ASC" else (lambda row: (-row[0], -row[1]))
        if "after" in request.query:
            ms, number = json.loads(base64.urlsafe_b64decode(request.query["after"]))
            rows = rows[bisect.bisect_right(rows, key((ms, number)), key=key):]
        return self.page(request, rows[:size], len(rows) > size)

    def page(self, request, rows, more):
        """The last page names no next one, or itself; one without rows may lack the list."""
        parts = {}
        if rows or self.draw.random() < 0.7:
            parts["entities"] = b"[" + b",".join(row[3] for row in rows) + b"]"
        elif self.draw.random() < 0.5:
            parts["entities"] = b"null"
        path = f"{request.path}?pageSize={request.query.get('pageSize', 25)}&after="
        own = request.query.get("after")
        if more:
            cursor = base64.urlsafe_b64encode(json.dumps(rows[-1][:2]).encode()).decode()
            parts["nextUri"] = json.dumps(path + urllib.parse.quote(cursor)).encode()
        elif own and self.draw.random() < 0.3:
            parts["nextUri"] = json.dumps(path + urllib.parse.quote(own)).encode()
        parts["selfUri"] = json.dumps(request.path).encode()
        body = b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in parts.items()) + b"}"
        return Answer(200, body, last=not more)

    def aggregates(self, request):
        counts = {}
        for row in self.span(request):
            counts[row[2]] = counts.get(row[2], 0) + 1
        body = {"interval": request.json()["interval"]}
        if counts or self.draw.random() < 0.5:
            body["eventDefinitionAggregates"] = [{"eventDefinition": {"id": name}, "eventCount": count}
                                                 for name, count in counts.items()]
        return Answer(200, body)

