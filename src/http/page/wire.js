// Asking the collector: the newest records once, then only what is new, and its health with each answer.

const KEEP = 1000, EVERY = 2000, EVERY_HIDDEN = 20000, PATIENCE = 5000;
const store = { events: [], next: 0, health: null, started: null, offset: 0, answeredAt: 0, silent: false, more: false };
let token = sessionStorage.getItem("token") || "";
let timer = 0, asking = false, wrongToken = false;

const now = () => Date.now() + store.offset;

// The records' own texts, cut out of the answer: so the page shows a number as it was sent, not as JavaScript reads it.
function cut(text) {
  const raws = [];
  let at = text.indexOf("[") + 1;
  while (text.charCodeAt(at) === 123) {
    const begin = at;
    let depth = 0;
    for (;;) {
      const c = text.charCodeAt(at);
      if (c === 34) {
        do at = text.indexOf('"', at + 1); while (at > 0 && escaped(text, at));
        if (at < 0) throw new Error("an answer that ends in a string");
      } else if (c === 123) depth += 1;
      else if (c === 125 && --depth === 0) break;
      at += 1;
    }
    at += 1;
    raws.push(text.slice(begin, at));
    if (text.charCodeAt(at) === 44) at += 1;
  }
  return { raws, rest: JSON.parse("{" + text.slice(at + 2)) };
}

function escaped(text, at) {
  let slashes = 0;
  while (text.charCodeAt(at - 1 - slashes) === 92) slashes += 1;
  return slashes % 2 === 1;
}

function understand(raw) {
  let e = {};
  try { e = JSON.parse(raw) || {}; } catch { /* shown as it is */ }
  const t = Date.parse(e.timestamp), r = Date.parse(e.received_at);
  return { raw, e, t: Number.isFinite(t) ? t : r, r: Number.isFinite(r) ? r : t, row: null, words: null };
}

async function poll() {
  clearTimeout(timer);
  if (asking || (needsToken() && !token)) return;
  asking = true;
  const abort = new AbortController(), limit = setTimeout(() => abort.abort(), PATIENCE);
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(`events?after=${store.next}&limit=${KEEP}`, { headers, cache: "no-store", signal: abort.signal });
    if (answer.status === 401) return refuse();
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    take(await answer.text());
    if (token) sessionStorage.setItem("token", token);
  } catch {
    store.silent = true;
    show([]);
  } finally {
    clearTimeout(limit);
    asking = false;
    timer = setTimeout(poll, document.hidden ? EVERY_HIDDEN : EVERY);
  }
}

function take(text) {
  const { raws, rest } = cut(text);
  const started = rest.health.stats.started_at;
  if (store.started !== null && (started !== store.started || rest.next < store.next)) {
    // Another run of the collector: its numbers begin anew. What is shown is asked for again, whole.
    Object.assign(store, { events: [], next: 0, started: null, more: false });
    clearRows();
    setTimeout(poll, 0);
    return;
  }
  const fresh = raws.map(understand);
  const first = store.started === null;
  store.more = store.more || rest.next - store.next > fresh.length || store.events.length + fresh.length >= KEEP;
  store.events = store.events.concat(fresh).slice(-KEEP);
  Object.assign(store, { next: rest.next, health: rest.health, started, answeredAt: Date.now(), silent: false });
  store.offset = Date.parse(rest.health.timestamp) - Date.now();
  show(fresh.slice(-KEEP), first);
}

const needsToken = () => document.documentElement.dataset.token === "yes";

function refuse() {
  wrongToken = token !== "";
  token = "";
  sessionStorage.removeItem("token");
  document.documentElement.dataset.token = "yes";
  showToken();
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-text").value.trim();
  $("token-text").value = "";
  if (!token) return;
  // No header carries anything else, and no token holds it.
  if (/^[\x20-\x7e]+$/.test(token)) poll();
  else refuse();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
