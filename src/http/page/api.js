// Polls the collector: first for everything, then for new events only. Each response includes the health.

const KEEP = 1000, EVERY_MS = 2000, EVERY_HIDDEN_MS = 20000, ANSWER_WITHIN_MS = 15000;
const MINUTE = 60e3, HOUR = 3600e3;
const FIELDS = ["id", "timestamp", "received_at", "source", "event_id", "event_name", "description", "entity_id", "entity_name", "conversation_id", "error_code"];

// `series` counts events by code and integration: per minute for one day and per hour for ten days.
const store = { events: [], series: new Map(), codes: new Map(), next: 0, total: 0, health: null, started: null, offset: 0, answeredAt: 0, silent: false, hasOlder: false, isLoaded: false };
let token = sessionStorage.getItem("token") || "";
let timer = 0, asking = false, wrongToken = false, needsToken = document.documentElement.dataset.token === "yes", wantsAll = true, mismatches = 0;

const now = () => Date.now() + store.offset;

async function request(path) {
  const abort = new AbortController(), limit = setTimeout(() => abort.abort(), ANSWER_WITHIN_MS);
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { headers, cache: "no-store", signal: abort.signal });
    return answer.ok ? { text: await answer.text() } : { status: answer.status };
  } finally {
    clearTimeout(limit);
  }
}

async function poll() {
  clearTimeout(timer);
  if (asking || (needsToken && !token)) return;
  asking = true;
  try {
    const answer = await request(wantsAll ? "live" : `live?since=${store.next}`);
    if (answer.status === 401) return refuse();
    if (answer.status) throw new Error(`status ${answer.status}`);
    take(JSON.parse(answer.text));
    if (token) sessionStorage.setItem("token", token);
  } catch {
    store.silent = true;
    show([], false);
  } finally {
    asking = false;
    timer = setTimeout(poll, document.hidden ? EVERY_HIDDEN_MS : EVERY_MS);
  }
}

function take(live) {
  const started = live.health.stats.started_at;
  if (!live.whole && started !== store.started) {
    // The collector was restarted, so its numbers start again.
    wantsAll = true;
    setTimeout(poll, 0);
    return;
  }
  const rows = live.rows.map(understand), first = Boolean(live.whole);
  if (first) {
    store.series = new Map(live.whole.series.map((series) => [seriesKey(series), unpack(series, live.whole.at)]));
    store.codes = new Map(live.whole.codes.map((code) => [code.id, code]));
    store.events = [];
    store.total = live.total;
  } else {
    rows.forEach(countRow);
  }
  // The collector takes counts and rows at slightly different times, so only a repeated mismatch needs a full reload.
  mismatches = store.total === live.total ? 0 : mismatches + 1;
  wantsAll = mismatches > 1 || !live.is_loaded;
  store.events = store.events.concat(rows).slice(-KEEP);
  Object.assign(store, { next: live.next, health: live.health, started, answeredAt: Date.now(), silent: false });
  Object.assign(store, { hasOlder: live.has_older || store.events.length >= KEEP, isLoaded: live.is_loaded });
  store.offset = Date.parse(live.health.timestamp) - Date.now();
  show(rows.slice(-KEEP), first);
}

function understand(row) {
  const e = Object.fromEntries(FIELDS.map((name, i) => [name, row[i]]));
  const t = Date.parse(e.timestamp), r = Date.parse(e.received_at);
  return { e, t: Number.isFinite(t) ? t : r, r: Number.isFinite(r) ? r : t, row: null, words: null };
}

const seriesKey = (e) => JSON.stringify([e.event_id || "", e.entity_id || ""]);

function unpack(series, at) {
  const buckets = (pairs, step) => {
    const map = new Map(), last = Math.floor(at / step);
    for (let i = 0; i < pairs.length; i += 2) map.set(last - pairs[i], pairs[i + 1]);
    return map;
  };
  return { ...series, minutes: buckets(series.minutes, MINUTE), hours: buckets(series.hours, HOUR) };
}

// Counts a row in the same way as the collector counts the records it writes.
function countRow({ e, t }) {
  const key = seriesKey(e);
  if (!store.series.has(key)) {
    const [event_id, entity_id] = JSON.parse(key);
    store.series.set(key, { event_id, entity_id, entity_name: e.entity_name || "", minutes: new Map(), hours: new Map() });
  }
  const series = store.series.get(key);
  for (const [map, step] of [[series.minutes, MINUTE], [series.hours, HOUR]]) {
    const bucket = Math.floor(t / step);
    map.set(bucket, (map.get(bucket) || 0) + 1);
  }
  store.total += 1;
}

// The whole record with this id, as in the file; null if the collector no longer has it in memory.
async function fetchRecord(id) {
  try {
    const { text } = await request(`events?id=${encodeURIComponent(id)}&limit=1`);
    const begin = text.indexOf("[") + 1, end = text.lastIndexOf("]");
    return end > begin ? text.slice(begin, end) : null;
  } catch {
    return null;
  }
}

function refuse() {
  wrongToken = token !== "";
  token = "";
  needsToken = true;
  sessionStorage.removeItem("token");
  showToken();
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-text").value.trim();
  $("token-text").value = "";
  if (!token) return;
  // A token contains only printable ASCII, and a header cannot contain anything else.
  if (/^[\x20-\x7e]+$/.test(token)) poll();
  else refuse();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
