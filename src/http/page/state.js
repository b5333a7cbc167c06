// The state in words, the reasons, the figures.

const NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

function showState() {
  const health = store.health;
  const state = store.silent ? "silent" : health.status;
  const reasons = health ? health.reasons : [];
  const last = store.events.length ? store.events[store.events.length - 1].r : NaN;
  const newest = Number.isFinite(last)
    ? `The newest event came ${ago(now() - last)}.`
    : "No AudioHook event has come so far. Genesys Cloud sends one only when something goes wrong.";
  const wants = reasons.length === 1 ? "one thing wants a look" : `${NUMBERS[reasons.length] || reasons.length} things want a look`;
  const starting = reasons.length === 1 && reasons[0].code === "starting";
  const [word, headline, subline] = {
    healthy: ["Healthy", "Every event is being kept.", `${newest} Nothing needs you.`],
    degraded: starting
      ? ["Starting", "The collector is starting.", newest]
      : ["Degraded", `Events are being kept; ${wants}.`, newest],
    unhealthy: ["Unhealthy", "Events are not being kept.", `${newest} What to do stands below.`],
    silent: ["No answer", "The collector does not answer.", silence()],
  }[state];
  if ($("state").dataset.state !== state) $("state").dataset.state = state;
  say("word", word);
  say("headline", headline);
  say("subline", subline);
  $("main").classList.toggle("stale", store.silent);
  const live = store.silent ? "lost" : "yes";
  if ($("live").dataset.live !== live) $("live").dataset.live = live;
  say("live-text", store.silent ? "not answering" : `live · ${clockTime(Date.now(), true)}`);
  const title = `${word} – AudioHook collector`;
  if (document.title !== title) document.title = title;
  showReasons(reasons);
}

function silence() {
  const tried = "It is asked again every two seconds.";
  if (!store.answeredAt) return `${tried} Is it running, and is this its address?`;
  return `Its last answer came ${ago(Date.now() - store.answeredAt)}; what is shown below is from then. ${tried}`;
}

let reasonsShown = "";

function showReasons(reasons) {
  const key = JSON.stringify(reasons);
  if (key !== reasonsShown) {
    reasonsShown = key;
    const rank = (reason) => (BAD.has(reason.code) ? 0 : 1);
    const cards = [...reasons].sort((a, b) => rank(a) - rank(b)).map((reason) =>
      make("article", { class: BAD.has(reason.code) ? "reason bad" : "reason", "data-code": reason.code },
        make("h3", {}, REASONS[reason.code] || reason.code, make("code", {}, reason.code)),
        make("span", { class: "since", "data-since": reason.since }),
        ...explanation(reason.message)));
    $("reasons").replaceChildren(...cards);
  }
  for (const since of $("reasons").querySelectorAll(".since")) {
    const at = Date.parse(since.dataset.since);
    const text = `since ${dayTime(at, now())} · ${span(now() - at).replace(/\.\d/, "")}`;
    if (since.textContent !== text) since.textContent = text;
  }
}

function explanation(message) {
  const [what, cure] = understandReason(message);
  const parts = [make("p", { class: "message" }, alone(sentence(what)))];
  if (cure) parts.push(make("p", { class: "cure" }, make("b", {}, "What to do"), alone(sentence(cure))));
  return parts;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// What the cluster's tile says while one of these reasons stands, the gravest first.
const CLUSTER = [["elastic_refused", "Refuses"], ["elastic_unreachable", "Unreachable"], ["elastic_backlog_dropped", "Lacks events"]];

function showFigures() {
  const { events, health } = store, { stats, elastic } = health, at = now();
  showNow(events, at);
  showLateness(events);
  sayBig("file-big", count(stats.audiohook_events), stats.audiohook_events === 1 ? "event" : "events");
  const aside = [[stats.duplicates, "double"], [stats.unreadable, "unreadable frame"]].filter(([n]) => n > 0);
  const other = stats.filtered > 0 ? [`${count(stats.filtered)} not AudioHook's`] : [];
  const left = aside.map(([n, what]) => plural(n, what)).concat(other);
  say("file-small", `in ${span(at - Date.parse(stats.started_at)).replace(/\.\d/, "")}${left.length ? `; left out: ${left.join(", ")}` : ""}`);
  const down = health.reasons.some((reason) => reason.code === "socket_down");
  sayBig("way-big", stats.socket_connected ? "Socket open" : down ? "Socket down" : stats.history_checkpoint ? "By history" : "No socket");
  const read = stats.history_checkpoint ? `history read up to ${ago(at - Date.parse(stats.history_checkpoint))}` : "the history is not read";
  say("way-small", [read, stats.reconnects ? plural(stats.reconnects, "reconnect") : ""].filter(Boolean).join(", "));
  $("cluster").hidden = !elastic;
  if (elastic) {
    const waiting = elastic.backlog_bytes > 0, trouble = CLUSTER.find(([code]) => health.reasons.some((reason) => reason.code === code));
    if (trouble) sayBig("cluster-big", trouble[1]);
    else if (waiting) sayBig("cluster-big", bytes(elastic.backlog_bytes), "waiting");
    else sayBig("cluster-big", "Up to date");
    say("cluster-small", [
      trouble && waiting ? `${bytes(elastic.backlog_bytes)} waiting` : "",
      elastic.server || "no answer from it yet",
      plural(elastic.created + elastic.exists, "document"),
      elastic.dead ? plural(elastic.dead, "dead letter") : "",
      elastic.dropped ? `${count(elastic.dropped)} dropped` : "",
    ].filter(Boolean).join(" · "));
  }
}

let sparkShown = "";

function showNow(events, at) {
  const minutes = new Array(60).fill(0);
  for (const { r } of events) {
    const back = Math.floor((at - r) / 60000);
    if (back < 60) minutes[59 - Math.max(0, back)] += 1;
  }
  const full = store.more && events.length && at - events[0].r < 60000;
  sayBig("now-big", (full ? "over " : "") + count(minutes[59]), minutes[59] === 1 ? "event" : "events");
  const hour = minutes.reduce((sum, n) => sum + n, 0);
  const reaches = store.more && events.length && at - events[0].r < 3600000;
  say("now-small", reaches ? `${count(hour)} in the last ${span(at - events[0].r)}` : `${count(hour)} in the last hour`);
  const key = minutes.join();
  if (key === sparkShown) return;
  sparkShown = key;
  const most = Math.max(...minutes, 1);
  const bars = minutes.map((n, i) => {
    const height = n ? Math.max(2, (n / most) * 21) : 1;
    return draw("rect", { x: i * 4, y: 22 - height, width: 3, height, class: n ? "" : "base" });
  });
  $("spark").setAttribute("viewBox", "0 0 239 22");
  $("spark").setAttribute("preserveAspectRatio", "none");
  $("spark").replaceChildren(...bars);
}

function showLateness(events) {
  const by = (source) => events.filter((x) => x.e.source === source && Number.isFinite(x.r - x.t)).slice(-200)
    .map((x) => Math.max(0, x.r - x.t)).sort((a, b) => a - b);
  const socket = by("websocket"), history = by("history");
  const main = socket.length ? socket : history;
  if (!main.length) {
    sayBig("late-big", "–");
    return say("late-small", "from the event to here; nothing has come yet");
  }
  sayBig("late-big", span(middle(main, 0.5)), socket.length ? "by socket" : "by history");
  const slow = `19 of 20 within ${span(middle(main, 0.95))}`;
  say("late-small", socket.length && history.length ? `${slow}; by history ${span(middle(history, 0.5))}` : slow);
}
