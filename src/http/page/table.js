// The newest events, their filter, and one record whole.

let filterWords = [], picked = null, current = null, dayShown = "", stop = null;

function rowOf(x) {
  const { e } = x, code = codeOf(x), what = e.event_name || e.description || "–";
  const more = e.event_name && e.description ? ["  ", make("bdi", { class: "more" }, String(e.description))] : [];
  const conversation = e.conversation_id || "–";
  const way = { websocket: "socket", history: "history" }[e.source] || e.source || "";
  const late = Number.isFinite(x.r - x.t) ? `${span(x.r - x.t)} · ${way}` : way;
  x.row = make("tr", {},
    make("td", { class: "c-time", title: String(e.timestamp || "") }, make("button", { type: "button", tabindex: "-1", "aria-label": `Show the record of ${dayTime(x.t, now())}` }, dayTime(x.t, now()))),
    make("td", { class: "c-code" }, make("span", { class: `swatch ${colour(code)}` }), alone(code)),
    make("td", { class: "c-what", title: [e.event_name, e.description].filter(Boolean).join(": ") }, alone(what), ...more),
    make("td", { class: "c-who", title: String(e.entity_id || "") }, String(e.entity_name || e.entity_id || "–")),
    make("td", { class: "c-conv mono", title: String(conversation) }, String(conversation)),
    make("td", { class: "c-late", title: "from the event to here, and by which way" }, alone(late)));
  x.row.addEventListener("click", () => openRecord(x));
  return x.row;
}

function showRows(fresh, first) {
  const body = $("rows"), scroll = $("scroll");
  const today = new Date(now()).toDateString();
  if (today !== dayShown) {
    // After midnight yesterday's times need their day.
    dayShown = today;
    clearRows();
    fresh = store.events;
    first = true;
  }
  if (fresh.length) {
    const rows = fresh.map(rowOf).reverse();
    fresh.forEach((x) => { x.row.hidden = !matches(x); });
    if (!first && fresh.length <= 50) rows.forEach((row) => row.classList.add("new"));
    // Those that leave go first: what is added above is what moves the others.
    while (body.childElementCount + rows.length > store.events.length) body.lastElementChild.remove();
    const before = scroll.scrollHeight, at = scroll.scrollTop;
    body.prepend(...rows);
    // Who reads further down keeps what is under their eyes.
    if (at > 8) scroll.scrollTop = at + scroll.scrollHeight - before;
  }
  keepOneStop();
  showCount();
}

function clearRows() {
  $("rows").replaceChildren();
}

// The Tab key stops at one row, the newest unless another has the focus; from there the arrow keys lead on.
function keepOneStop() {
  if (stop && stop === document.activeElement) return;
  stopAt($("rows").querySelector("tr:not([hidden]) button"));
}

function stopAt(button) {
  if (stop) stop.tabIndex = -1;
  stop = button;
  if (stop) stop.tabIndex = 0;
}

$("rows").addEventListener("focusin", (event) => stopAt(event.target));
$("rows").addEventListener("keydown", (event) => {
  const rows = [...$("rows").children].filter((row) => !row.hidden), at = rows.indexOf(event.target.closest("tr"));
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: rows.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  rows[Math.max(0, Math.min(rows.length - 1, to))].querySelector("button").focus();
});

const isFiltered = () => picked !== null || filterWords.length > 0;

function matches(x) {
  if (picked && String(FIELDS[picked.field](x)) !== picked.what) return false;
  if (!filterWords.length) return true;
  x.words = x.words ?? values(x.raw).toLowerCase();
  return filterWords.every((word) => x.words.includes(word));
}

// The values of a record as a person reads them: no names of fields, no escapes, numbers as they were sent.
function values(raw) {
  const found = [];
  for (const [token, name] of raw.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|[^\s{}[\],:"]+/gs)) {
    if (name === undefined && token !== "null") found.push(token[0] === '"' ? decoded(token) : token);
  }
  return found.join("\n");
}

function decoded(string) {
  try { return JSON.parse(string); } catch { return string; }
}

function showCount() {
  const all = store.events.length, shown = isFiltered() ? store.events.filter(matches).length : all;
  const kept = store.more ? `the newest ${count(all)}; older ones are in the file` : plural(all, "event");
  say("shown", isFiltered() ? `${count(shown)} of ${count(all)} match` : all ? kept : "");
  $("none").hidden = shown > 0;
  say("none", all ? "No event matches the filter." : "Nothing has come yet. An event appears here within seconds of its arrival.");
}

function applyFilter() {
  filterWords = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const x of store.events) if (x.row) x.row.hidden = !matches(x);
  keepOneStop();
  showCount();
}

// Shows the events whose field is this and nothing else; the words of the filter would hide some of them.
function pick(field, what) {
  picked = { field, what };
  $("filter").value = "";
  $("picked").replaceChildren(`${field} `, alone(what), " ✕");
  $("picked").title = `Show other events than those of ${what} too`;
  $("picked").hidden = false;
  applyFilter();
  $("newest-title").scrollIntoView({ block: "start", behavior: "auto" });
}

$("filter").addEventListener("input", applyFilter);
$("picked").addEventListener("click", () => {
  picked = null;
  $("picked").hidden = true;
  applyFilter();
  $("filter").focus();
});

// Indents the text itself, so that 1.0 stays 1.0 and twenty digits stay twenty; its parts.
function pretty(raw) {
  const out = [];
  let depth = 0, at = 0;
  const line = () => out.push("\n", "  ".repeat(Math.min(depth, 40)));
  while (at < raw.length) {
    const c = raw[at];
    if (c === '"') {
      let end = at;
      do end = raw.indexOf('"', end + 1); while (end > 0 && escaped(raw, end));
      end = end < 0 ? raw.length : end + 1;
      out.push(raw.slice(at, end));
      at = end;
      continue;
    }
    if ((c === "{" || c === "[") && (raw[at + 1] === "}" || raw[at + 1] === "]")) {
      out.push(c, raw[at + 1]);
      at += 2;
      continue;
    }
    if (c === "{" || c === "[") { depth += 1; out.push(c); line(); }
    else if (c === "}" || c === "]") { depth -= 1; line(); out.push(c); }
    else if (c === ",") { out.push(c); line(); }
    else if (c === ":") out.push(": ");
    else if (c.trim()) out.push(c);
    at += 1;
  }
  return out;
}

// Letters and marks that are written from right to left, or turn others so.
const TURNS = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;

function openRecord(x) {
  const { e } = x;
  current = x;
  sayParts("record-when", `${dayTime(x.t, now())} · `, alone(codeOf(x)));
  say("record-title", String(e.event_name || codeOf(x)));
  say("record-text", String(e.description || ""));
  const fields = [["Integration", e.entity_name], ["Entity", e.entity_id], ["Conversation", e.conversation_id], ["Error", e.error_code], ["Before", e.previous_value], ["After", e.current_value], ["Event time", e.timestamp], ["Received", e.received_at && `${e.received_at} by ${e.source}`], ["Record", e.id]];
  $("record-fields").replaceChildren(...fields.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  sayParts("record-json", ...pretty(x.raw).map((part) => (TURNS.test(part) ? alone(part) : part)));
  say("copied", "");
  $("show-conversation").hidden = !e.conversation_id;
  $("record-json").scrollTop = 0;
  if (!$("record").open) $("record").showModal();
}

function curl({ e }) {
  // Half a surrogate pair has no place in an address: the other fields find the record.
  const names = ["event_id", "conversation_id", "entity_id"].filter((name) => typeof e[name] === "string" && isWhole(e[name]));
  // A quote in an identifier must not end the shell's own.
  const encoded = (value) => encodeURIComponent(value).replace(/'/g, "%27");
  const query = names.map((name) => `${name}=${encoded(e[name])}`).concat("limit=1000").join("&");
  const header = needsToken() ? ' -H "Authorization: Bearer $HTTP_TOKEN"' : "";
  return `curl -s${header} '${new URL("events", location.href).href}?${query}'`;
}

function isWhole(text) {
  try {
    encodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

async function copy(what, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https the clipboard is closed to scripts, but for a selection of the page.
    const area = make("textarea", { readonly: "" });
    area.value = text;
    $("record").append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  say("copied", done ? `${what} copied` : "the browser did not allow it");
}

$("copy-json").addEventListener("click", () => copy("JSON", pretty(current.raw).join("")));
$("copy-curl").addEventListener("click", () => copy("curl", curl(current)));
$("show-conversation").addEventListener("click", () => { $("record").close(); pick("conversation", String(current.e.conversation_id)); });
$("record-close").addEventListener("click", () => $("record").close());
$("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });

// All of it, after each answer.
function show(fresh, first) {
  const known = store.health !== null;
  $("data").hidden = !known;
  $("token").hidden = true;
  if (known || store.silent) showState();
  if (!known) return;
  showFigures();
  showHours();
  showRows(fresh, first);
}

function showToken() {
  $("data").hidden = true;
  $("token").hidden = false;
  $("state").dataset.state = "asking";
  $("live").dataset.live = "no";
  say("live-text", "waiting for the token");
  say("word", "Locked");
  say("headline", "The token, please.");
  say("subline", "HTTP_TOKEN is set for this collector.");
  say("token-note", wrongToken ? "That was not the token. Look for HTTP_TOKEN in the collector's settings." : "It is kept in this tab alone, and forgotten when the tab is closed.");
  $("token-note").classList.toggle("wrong", wrongToken);
  $("token-text").focus();
}

if (needsToken() && !token) showToken();
else poll();
