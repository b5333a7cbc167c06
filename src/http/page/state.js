// Shows the health, the problems with their fixes, and the figures.

const REASONS = {
  credentials_refused: "Genesys Cloud refuses the credentials",
  not_receiving: "No events can be received",
  disk_write_failed: "Events cannot be written to disk",
  stalled: "A thread of the collector does not respond",
  starting: "The collector is starting",
  socket_down: "The WebSocket is down",
  history_forbidden: "Reading the history is not permitted",
  history_failing: "The history cannot be read",
  subscription_rejected: "A subscription was rejected",
  elastic_unreachable: "The cluster cannot be reached",
  elastic_refused: "The cluster refuses the documents",
  elastic_backlog_dropped: "Events were dropped before the cluster had them",
  dead_letters: "The cluster rejected some events",
  unreadable_frames: "Frames were received that are not events",
  incomplete: "Events are missing from the file",
  definitions_unconfirmed: "The list of AudioHook definitions is not confirmed",
};

const hasReason = (...codes) => store.health.reasons.some((reason) => codes.includes(reason.code));

function showState() {
  const { health } = store, reasons = health ? health.reasons : [];
  const starting = reasons.length === 1 && reasons[0].code === "starting";
  const problems = plural(reasons.length, "problem");
  const [word, headline, subline] = {
    healthy: ["Healthy", "All events are being collected", "No action needed."],
    degraded: starting
      ? ["Starting", "The collector is starting", "It subscribes to the events in a few seconds."]
      : ["Degraded", `Events are being collected, with ${problems}`, "What to do is shown below."],
    unhealthy: ["Unhealthy", "Events are not being collected", "What to do is shown below."],
    silent: ["No answer", "The collector does not answer", silence()],
  }[store.silent ? "silent" : health.status];
  const state = store.silent ? "silent" : health.status;
  if ($("state").dataset.state !== state) $("state").dataset.state = state;
  setText("word", word);
  setText("headline", headline);
  setText("subline", subline);
  $("main").classList.toggle("stale", store.silent);
  const live = store.silent ? "lost" : "yes";
  if ($("live").dataset.live !== live) $("live").dataset.live = live;
  setText("live-text", store.silent ? "no answer" : `live · ${clockTime(now(), true)}`);
  const instance = health ? health.instance : "";
  setText("instance", instance);
  setText("zone", `Times in ${zoneName()}`);
  const title = [word, instance, "AudioHook collector"].filter(Boolean).join(" – ");
  if (document.title !== title) document.title = title;
  showReasons(reasons);
}

function silence() {
  const tried = "Retrying every two seconds.";
  if (!store.answeredAt) return `Check that it is running and that this is its address. ${tried}`;
  return `Its last answer came ${ago(Date.now() - store.answeredAt)}; the data below is from then. ${tried}`;
}

let reasonsShown = "";

function showReasons(reasons) {
  const key = JSON.stringify(reasons);
  if (key !== reasonsShown) {
    reasonsShown = key;
    const isBad = (reason) => reason.severity === "unhealthy";
    const cards = [...reasons].sort((a, b) => isBad(b) - isBad(a)).map((reason) =>
      make("article", { class: isBad(reason) ? "reason bad" : "reason", "data-code": reason.code },
        make("h3", {}, REASONS[reason.code] || reason.code, " ", make("code", {}, reason.code)),
        make("span", { class: "since", "data-since": reason.since }),
        make("p", { class: "message" }, isolated(sentence(reason.message))),
        ...(reason.cure ? [make("p", { class: "cure" }, make("b", {}, "What to do"), " ", isolated(reason.cure))] : [])));
    $("reasons").replaceChildren(...cards);
  }
  for (const since of $("reasons").querySelectorAll(".since")) {
    const at = Date.parse(since.dataset.since), text = `since ${dayTime(at, now())} · ${rounded(now() - at)}`;
    if (since.textContent !== text) since.textContent = text;
  }
}

// The text of the cluster figure while one of these reasons is raised, the most severe first.
const CLUSTER = [["elastic_refused", "Refuses documents"], ["elastic_unreachable", "Unreachable"], ["elastic_backlog_dropped", "Lacks events"]];

function showFigures() {
  const { health } = store, { stats, elastic } = health, at = now();
  const inHour = sumSince(at - HOUR, isFailure), before = sumSince(at - 2 * HOUR, isFailure) - inHour;
  setBig("hour-big", count(inHour));
  setText("hour-small", `${count(before)} in the hour before`);
  showDelay(stats);
  const newest = store.events.reduce((last, x) => Math.max(last, x.t), -Infinity);
  setBig("newest-big", Number.isFinite(newest) ? ago(at - newest) : "None yet");
  setText("newest-small", Number.isFinite(newest) ? dayTime(newest, at) : "Genesys Cloud sends events only about problems.");
  showSource(stats, at);
  $("cluster").hidden = !elastic;
  if (elastic) showCluster(elastic);
  const since = `since ${dayTime(Date.parse(stats.started_at), at)}`;
  const odd = stats.unreadable ? `, ${plural(stats.unreadable, "unreadable frame")}` : "";
  setText("foot", `${plural(stats.audiohook_events, "event")} written ${since}${odd} · version ${health.version}`);
}

function showSource(stats, at) {
  const checkpoint = Date.parse(stats.history_checkpoint), works = Number.isFinite(checkpoint) && !hasReason("history_forbidden", "history_failing", "credentials_refused", "not_receiving");
  if (stats.socket_connected) setBig("source-big", "WebSocket");
  else if (works) setBig("source-big", "History");
  else setBig("source-big", hasReason("starting") ? "Connecting" : "Nothing");
  const read = works ? `history up to ${ago(at - checkpoint)}` : "history not being read";
  setText("source-small", read);
}

function showCluster(elastic) {
  const waiting = elastic.backlog_bytes > 0, trouble = CLUSTER.find(([code]) => hasReason(code));
  if (trouble) setBig("cluster-big", trouble[1]);
  else if (waiting) setBig("cluster-big", bytes(elastic.backlog_bytes), "waiting");
  else setBig("cluster-big", "Up to date");
  setText("cluster-small", [
    trouble && waiting ? `${bytes(elastic.backlog_bytes)} waiting` : "",
    elastic.server || "not connected yet",
    elastic.dead ? plural(elastic.dead, "dead letter") : "",
    elastic.dropped ? `${count(elastic.dropped)} dropped` : "",
  ].filter(Boolean).join(" · "));
}

// Shows the delay of the current source, or of the other one if no event in memory came from the current one.
function showDelay(stats) {
  const by = (source) => store.events.filter((x) => x.e.source === source && Number.isFinite(x.r - x.t)).slice(-200)
    .map((x) => Math.max(0, x.r - x.t)).sort((a, b) => a - b);
  const sources = [["websocket", "WebSocket"], ["history", "history"]];
  if (!stats.socket_connected) sources.reverse();
  const shown = sources.find(([source]) => by(source).length);
  if (!shown) {
    setBig("delay-big", "–");
    return setText("delay-small", "from the event to its receipt");
  }
  const delays = by(shown[0]);
  setBig("delay-big", span(quantile(delays, 0.5)), "median");
  setText("delay-small", `95 % within ${span(quantile(delays, 0.95))}, by ${shown[1]}`);
}
