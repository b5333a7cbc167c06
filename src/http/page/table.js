// The table of the newest events and its filters.

let dayShown = "", stop = null;

// The fields that events can be filtered by, apart from the search text.
const PICKS = {
  code: codeOf,
  integration: (x) => x.e.entity_id || "",
  conversation: (x) => x.e.conversation_id || "",
};

const sourceName = (e) => ({ websocket: "WebSocket", history: "history" })[e.source] || e.source || "–";

function rowOf(x) {
  const { e } = x, code = codeOf(x), what = e.event_name || e.description || "–";
  const more = e.event_name && e.description ? [" ", make("bdi", { class: "more" }, String(e.description))] : [];
  const source = sourceName(e);
  const delay = Number.isFinite(x.r - x.t) ? `${span(x.r - x.t)} · ${source}` : source;
  const time = dayTime(x.t, now());
  x.row = make("tr", {},
    make("td", { class: "c-time", title: fullTime(x.t) }, make("button", { type: "button", tabindex: "-1", "aria-label": `Show the record of ${time}` }, time)),
    make("td", { class: "c-code" }, make("span", { class: `swatch ${colour(code)}` }), isolated(code)),
    make("td", { class: "c-what", title: [e.event_name, e.description].filter(Boolean).join(": ") }, isolated(what), ...more),
    make("td", { class: "c-who", title: String(e.entity_id || "") }, isolated(e.entity_name || e.entity_id || "–")),
    make("td", { class: "c-conv mono", title: String(e.conversation_id || "") }, isolated(e.conversation_id || "–")),
    make("td", { class: "c-late", title: "from the event to its receipt" }, isolated(delay)));
  x.row.addEventListener("click", () => openRecord(x));
  return x.row;
}

function showRows(fresh, first) {
  const body = $("rows"), scroll = $("scroll");
  const today = new Date(now()).toDateString();
  if (first || today !== dayShown) {
    // After midnight, yesterday's times need a date.
    dayShown = today;
    body.replaceChildren();
    fresh = store.events;
    first = true;
  }
  if (fresh.length) {
    for (const old of body.querySelectorAll("tr.new")) old.classList.remove("new");
    const rows = fresh.map(rowOf).reverse();
    fresh.forEach((x) => { x.row.hidden = !matches(x); });
    if (!first && fresh.length <= 50) rows.forEach((row) => row.classList.add("new"));
    // Remove old rows first, so that only the rows added above change the scroll position.
    while (body.childElementCount + rows.length > store.events.length) body.lastElementChild.remove();
    const before = scroll.scrollHeight, at = scroll.scrollTop;
    body.prepend(...rows);
    // Keep the scroll position of a user who has scrolled down.
    if (at > 8) scroll.scrollTop = at + scroll.scrollHeight - before;
  }
  keepOneStop();
  showCount();
}

// Only one row can be reached with the Tab key: the focused row, or else the newest. The arrow keys move between rows.
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

const words = () => view.q.toLowerCase().split(/\s+/).filter(Boolean);
const isFiltered = () => words().length > 0 || Object.keys(PICKS).some((pick) => view[pick]);

function matches(x) {
  for (const [pick, valueOf] of Object.entries(PICKS)) if (view[pick] && String(valueOf(x)) !== view[pick]) return false;
  const wanted = words();
  if (!wanted.length) return true;
  x.words = x.words ?? Object.values(x.e).filter((value) => value !== null).join("\n").toLowerCase();
  return wanted.every((word) => x.words.includes(word));
}

function applyFilter() {
  for (const x of store.events) if (x.row) x.row.hidden = !matches(x);
  keepOneStop();
  showCount();
  showPicks();
  showMeaning($("meaning"), view.code, []);
}

function showCount() {
  const all = store.events.length, shown = isFiltered() ? store.events.filter(matches).length : all;
  const kept = store.hasOlder ? `the newest ${count(all)}; audiohook-collector events prints older ones` : plural(all, "event");
  setText("shown", isFiltered() ? `${count(shown)} of ${count(all)} match` : all ? kept : "");
  $("none").hidden = shown > 0;
  setText("none", all ? "No event matches the filter." : "No events yet. Genesys Cloud sends one only when AudioHook has a problem.");
}

// Shows each filter as a button that removes it.
function showPicks() {
  const items = Object.keys(PICKS).filter((pick) => view[pick]).map((pick) => ({ pick, what: pick === "integration" ? nameOf(view[pick]) : view[pick] }));
  const build = () => make("button", { type: "button", class: "picked", onclick: (event) => setView({ [event.currentTarget.dataset.pick]: null }) });
  fillList($("picks"), items, build, (button, { pick, what }) => {
    button.dataset.pick = pick;
    button.title = "Remove this filter";
    button.replaceChildren(`${pick} `, isolated(what), " ✕");
  });
}

function nameOf(entity) {
  for (const series of store.series.values()) if (series.entity_id === entity && series.entity_name) return series.entity_name;
  return entity;
}

// Shows what a code means and what to check, after the elements in `before`.
function showMeaning(element, code, before) {
  const known = store.codes.get(code);
  element.hidden = !known;
  if (!known) return;
  element.replaceChildren(...before,
    make("p", {}, make("b", {}, `What ${short(code)} means `), known.means, ...(known.inferred ? [" ", make("span", { class: "inferred", title: "Genesys does not publish this meaning" }, "inferred")] : [])),
    make("p", {}, make("b", {}, "What to check "), known.check));
}

$("filter").addEventListener("input", () => setView({ q: $("filter").value }));
