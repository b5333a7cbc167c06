// The chart of events by code over the last hour, day or ten days, and the list of failing integrations.

const SPANS = [
  { id: "1h", name: "hour", label: "1 h", length: HOUR, step: MINUTE },
  { id: "24h", name: "24 hours", label: "24 h", length: 24 * HOUR, step: 15 * MINUTE },
  { id: "10d", name: "10 days", label: "10 d", length: 240 * HOUR, step: 3 * HOUR },
];
const COLOURS = 12;
let chartShown = "", bins = null, pointed = null;

const codeOf = (x) => (typeof x.e.event_id === "string" && x.e.event_id) || "no code";

// Whether the event reports a recovery instead of a failure.
function isRecovery(code, name) {
  const known = store.codes.get(code);
  return known ? known.recovery : /\b(recovered|restored|resumed)\b/i.test(name || "");
}
const names = new Map();
const isFailure = (code) => !isRecovery(code, names.get(code));

// The colour depends only on the code, so it is the same in every browser and at every time.
function colour(code) {
  if (!isFailure(code)) return "k-recovery";
  const number = /(\d+)$/.exec(code);
  const hash = number ? Number(number[1]) - 1 : [...code].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 997, 7);
  return `k${((hash % COLOURS) + COLOURS) % COLOURS}`;
}

const range = () => SPANS.find((one) => one.id === view.range) || SPANS[1];

// Counts exist per minute for the last day, and per hour before that.
function* bucketsSince(from, series) {
  const dayAgo = now() - 24 * HOUR;
  if (from >= dayAgo - MINUTE) for (const [minute, n] of series.minutes) yield [minute * MINUTE, n];
  else for (const [hour, n] of series.hours) yield [hour * HOUR, n];
}

function sumSince(from, wanted) {
  let sum = 0;
  for (const series of store.series.values()) {
    if (!wanted(series.event_id || "no code")) continue;
    for (const [at, n] of bucketsSince(from, series)) if (at >= from) sum += n;
  }
  return sum;
}

for (const option of SPANS) {
  $("spans").append(make("button", { type: "button", "data-id": option.id, title: `The last ${option.name}`, onclick: () => setView({ range: option.id }) }, option.label));
}

function showChart() {
  const { id, length, step } = range(), zone = new Date(now()).getTimezoneOffset() * MINUTE;
  for (const button of $("spans").children) button.setAttribute("aria-pressed", String(button.dataset.id === id));
  for (const x of store.events) if (x.e.event_name) names.set(codeOf(x), x.e.event_name);
  const end = Math.ceil((now() - zone) / step) * step + zone, start = end - length;
  const rows = Array.from({ length: length / step }, () => new Map());
  const byCode = new Map(), byIntegration = new Map();
  for (const series of store.series.values()) {
    const code = series.event_id || "no code";
    let sum = 0, last = 0;
    for (const [at, n] of bucketsSince(start, series)) {
      if (at < start || at >= end) continue;
      sum += n;
      last = Math.max(last, at);
      if (!view.integration || series.entity_id === view.integration) {
        const row = rows[Math.floor((at - start) / step)];
        row.set(code, (row.get(code) || 0) + n);
      }
    }
    if (!sum) continue;
    if (!view.integration || series.entity_id === view.integration) byCode.set(code, (byCode.get(code) || 0) + sum);
    if (isFailure(code)) {
      const entry = byIntegration.get(series.entity_id) || { n: 0, last: 0, name: "", codes: [] };
      byIntegration.set(series.entity_id, { n: entry.n + sum, last: Math.max(entry.last, last), name: series.entity_name || entry.name, codes: [...entry.codes, [code, sum]] });
    }
  }
  bins = { ...bins, rows, start, step };
  drawChart();
  point();
  showLegend(byCode);
  showIntegrations(byIntegration);
}

function drawChart() {
  const { rows, start, step } = bins, svg = $("chart");
  const width = svg.clientWidth, height = svg.clientHeight, left = 34, bottom = 22, top = 6;
  if (!width) return;
  const key = JSON.stringify([width, height, start, step, rows.map((row) => [...row])]);
  if (key === chartShown) return;
  chartShown = key;
  const sums = rows.map((row) => [...row.values()].reduce((sum, n) => sum + n, 0));
  const most = ceiling(Math.max(...sums, 1)), plot = height - bottom - top, wide = (width - left) / rows.length;
  const parts = [];
  for (const share of most % 2 === 0 ? [0, 0.5, 1] : [0, 1]) {
    const y = Math.round(top + plot * (1 - share)) + 0.5;
    parts.push(makeSvg("line", { x1: left, x2: width, y1: y, y2: y }), label(left - 8, y + 4, compact(most * share), "end"));
  }
  parts.push(...timeLabels(start, step * rows.length, left, width, height));
  parts.push(makeSvg("rect", { id: "band", x: 0, y: top, width: wide, height: plot, class: "band", visibility: "hidden" }));
  rows.forEach((row, i) => {
    let y = top + plot;
    for (const code of [...row.keys()].sort()) {
      const tall = (row.get(code) / most) * plot, gap = wide > 5 ? 1.5 : 0.5;
      y -= tall;
      parts.push(makeSvg("rect", { x: (left + i * wide).toFixed(2), y: y.toFixed(2), width: (wide - gap).toFixed(2), height: Math.max(tall, 0.8).toFixed(2), class: `bar-part ${colour(code)}` }));
    }
  });
  if (!sums.some(Boolean)) parts.push(label(left + (width - left) / 2, top + plot / 2, store.isLoaded ? "No events in this time range" : "Reading the files of earlier runs", "middle"));
  Object.assign(bins, { left, wide });
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);
  point();
}

const label = (x, y, text, anchor) => makeSvg("text", { x, y, "text-anchor": anchor }, text);
const compact = (n) => (n >= 10000 ? `${n / 1000}k` : count(n));

// The labels of the time axis, at round local times.
function timeLabels(start, length, left, width, height) {
  const room = Math.max(2, Math.floor((width - left) / 90));
  const every = [10, 15, 30, 60, 120, 180, 240, 360, 720, 1440, 2880].map((m) => m * MINUTE).find((ms) => length / ms <= room) || 2880 * MINUTE;
  const zone = new Date(start).getTimezoneOffset() * MINUTE, parts = [];
  for (let at = Math.ceil((start - zone) / every) * every + zone; at < start + length; at += every) {
    const x = left + ((at - start) / length) * (width - left), d = new Date(at);
    if (x > width - 24 || x < left + 14) continue;
    parts.push(label(x, height - 5, d.getHours() === 0 && d.getMinutes() === 0 ? day(d) : clockTime(at, false), "middle"));
  }
  return parts;
}

function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((f) => f * power).find((most) => most >= n && Number.isInteger(most));
}

// Shows the counts of the bar under the pointer, or the sum if there is none.
function point() {
  if (!bins) return;
  const { rows, start, step, left, wide } = bins, row = rows[pointed], band = $("band");
  if (band) {
    band.setAttribute("visibility", row ? "visible" : "hidden");
    if (row) band.setAttribute("x", left + pointed * wide);
  }
  if (!row) {
    const sum = rows.reduce((all, one) => all + [...one.values()].reduce((a, b) => a + b, 0), 0);
    const where = view.integration ? " of this integration" : "";
    setText("readout", `${sum ? plural(sum, "event") : "no events"}${where} in the last ${range().name}`);
    return describePoint();
  }
  const from = start + pointed * step;
  const parts = [...row].sort().flatMap(([code, n], i) => [i ? ", " : "", isolated(short(code)), ` × ${count(n)}`]);
  const date = range().length > 24 * HOUR ? `${day(new Date(from))} ` : "";
  setParts("readout", `${date}${clockTime(from, false)}–${clockTime(from + step, false)}: `, ...(parts.length ? parts : ["no events"]));
  describePoint();
}

// Provides the same text to screen readers.
function describePoint() {
  const last = bins.rows.length - 1;
  const values = { "aria-valuemax": last, "aria-valuenow": pointed ?? last, "aria-valuetext": $("readout").textContent };
  for (const [name, value] of Object.entries(values)) {
    if ($("chart").getAttribute(name) !== String(value)) $("chart").setAttribute(name, value);
  }
}

$("chart").addEventListener("pointermove", (event) => {
  if (!bins || !bins.wide) return;
  pointed = Math.floor((event.clientX - $("chart").getBoundingClientRect().left - bins.left) / bins.wide);
  point();
});
function leavePoint() {
  pointed = null;
  point();
}
$("chart").addEventListener("pointerleave", leavePoint);
$("chart").addEventListener("blur", leavePoint);
$("chart").addEventListener("keydown", (event) => {
  if (!bins) return;
  if (event.key === "Escape") return leavePoint();
  const last = bins.rows.length - 1, at = pointed ?? last + 1;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowDown: at - 1, ArrowUp: at + 1, PageDown: at - 10, PageUp: at + 10, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  pointed = Math.max(0, Math.min(last, to));
  point();
});
new ResizeObserver(() => { if (bins) drawChart(); }).observe($("chart"));

// Sorted by code, so that each entry keeps its place while the numbers change.
function showLegend(byCode) {
  const items = [...byCode].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([code, n]) => ({ code, n, name: names.get(code) || (store.codes.get(code) || {}).name || "", on: view.code === code }));
  const build = () => make("li", {}, make("button", { type: "button", onclick: (event) => toggle("code", event.currentTarget.dataset.what) },
    make("span", { class: "swatch" }), make("b"), make("bdi", { class: "detail" }), make("span", { class: "sum" })));
  fillList($("legend"), items, build, (row, { code, n, name, on }) => {
    const button = row.firstElementChild, [swatch, id, detail, sum] = button.children;
    button.dataset.what = code;
    button.setAttribute("aria-pressed", String(on));
    button.title = [code, name].filter(Boolean).join(": ");
    swatch.setAttribute("class", `swatch ${colour(code)}`);
    id.textContent = short(code);
    detail.textContent = name.replace(/^AudioHook /, "");
    sum.textContent = count(n);
  });
}

function codesInWords(codes) {
  if (codes.length === 1) return codes[0][0];
  const shown = codes.slice(0, 2).map(([code, n]) => `${short(code)} × ${count(n)}`).join(", ");
  return codes.length > 2 ? `${shown} and ${codes.length - 2} more` : shown;
}

function showIntegrations(byIntegration) {
  const list = [...byIntegration].sort((a, b) => b[1].n - a[1].n || b[1].last - a[1].last).slice(0, 6);
  const most = list.length ? list[0][1].n : 1;
  const items = list.map(([id, { n, last, name, codes }]) => ({
    id, n, name: name || id || "no integration", share: (100 * n) / most, on: view.integration === id,
    codes: codesInWords(codes.sort((a, b) => b[1] - a[1])),
    when: now() - last < 2 * MINUTE ? "now" : ago(now() - last),
  }));
  const build = () => make("li", {}, make("button", { type: "button", onclick: (event) => toggle("integration", event.currentTarget.dataset.what) },
    make("span", { class: "name" }), make("span", { class: "count" }), make("span", { class: "detail" }), make("span", { class: "ago" }),
    makeSvg("svg", { viewBox: "0 0 100 3", preserveAspectRatio: "none", "aria-hidden": "true" },
      makeSvg("rect", { width: 100, height: 3, class: "base" }), makeSvg("rect", { height: 3, class: "part" }))));
  fillList($("integrations"), items, build, (row, item) => {
    const button = row.firstElementChild, [name, sum, detail, when, bar] = button.children;
    button.dataset.what = item.id;
    button.setAttribute("aria-pressed", String(item.on));
    button.title = item.id;
    name.textContent = item.name;
    sum.textContent = count(item.n);
    detail.textContent = item.codes;
    when.textContent = item.when;
    bar.lastElementChild.setAttribute("width", item.share);
  });
  $("integrations-none").hidden = items.length > 0;
}
