// The last hours: events by code, and who is affected most.

const SPANS = [["1 h", 3600e3, 60e3], ["6 h", 6 * 3600e3, 300e3], ["24 h", 24 * 3600e3, 1200e3], ["10 d", 240 * 3600e3, 4 * 3600e3]];
const COLOURS = 6;
const colours = new Map();
let chosen = SPANS[1], chartShown = "", bins = null, pointed = null;

const codeOf = (x) => (typeof x.e.event_id === "string" && x.e.event_id) || "no code";

// What the events can be picked by.
const FIELDS = {
  code: codeOf,
  integration: (x) => x.e.entity_id || x.e.entity_name,
  conversation: (x) => x.e.conversation_id,
};

// A code keeps its colour for as long as the page is open; those after the sixth share the grey.
function colour(code) {
  if (!colours.has(code)) colours.set(code, Math.min(colours.size, COLOURS));
  return `k${colours.get(code)}`;
}

for (const option of SPANS) {
  const button = make("button", { type: "button", "aria-pressed": String(option === chosen) }, option[0]);
  button.addEventListener("click", () => {
    chosen = option;
    for (const other of $("spans").children) other.setAttribute("aria-pressed", String(other === button));
    showHours();
  });
  $("spans").append(button);
}

function showHours() {
  const [label, length, step] = chosen, end = Math.ceil(now() / step) * step, start = end - length;
  const inside = store.events.filter((x) => x.t >= start && x.t < end);
  for (const code of [...new Set(store.events.map(codeOf))].sort()) colour(code);
  const rows = Array.from({ length: length / step }, () => new Map());
  for (const x of inside) {
    const row = rows[Math.floor((x.t - start) / step)], code = codeOf(x);
    row.set(code, (row.get(code) || 0) + 1);
  }
  const known = store.more && store.events.length ? Math.min(...store.events.slice(0, 50).map((x) => x.t)) : -Infinity;
  bins = { ...bins, rows, start, step, label, inside, known };
  drawChart();
  showLegend(inside);
  point();
  showTops("integrations", inside, "integration", (x) => x.e.entity_name || x.e.entity_id, false);
  showTops("conversations", inside, "conversation", (x) => x.e.conversation_id, true);
}

function drawChart() {
  const { rows, start, step, known } = bins, svg = $("chart");
  const width = svg.clientWidth, height = 190, left = 34, bottom = 22, top = 6;
  if (!width) return;
  const key = JSON.stringify([width, start, step, known, rows.map((row) => [...row])]);
  if (key === chartShown) return;
  chartShown = key;
  const sums = rows.map((row) => [...row.values()].reduce((sum, n) => sum + n, 0));
  const most = nice(Math.max(...sums, 1)), plot = height - bottom - top, wide = (width - left) / rows.length;
  const parts = [];
  if (known > start) {
    const edge = Math.min(width - left, ((known - start) / step) * wide);
    parts.push(draw("rect", { x: left, y: top, width: edge, height: plot, class: "unknown" }));
    if (edge > 170) parts.push(text(left + 10, top + 18, "older events: see the file", "start"));
  }
  for (const share of most % 2 === 0 ? [0, 0.5, 1] : [0, 1]) {
    const y = Math.round(top + plot * (1 - share)) + 0.5;
    parts.push(draw("line", { x1: left, x2: width, y1: y, y2: y }), text(left - 8, y + 4, count(most * share), "end"));
  }
  parts.push(...hours(start, step * rows.length, left, width, height));
  parts.push(draw("rect", { id: "band", x: 0, y: top, width: wide, height: plot, class: "band", visibility: "hidden" }));
  rows.forEach((row, i) => {
    let y = top + plot;
    for (const code of [...row.keys()].sort()) {
      const tall = (row.get(code) / most) * plot;
      y -= tall;
      const gap = wide > 5 ? 1.5 : 0.5;
      parts.push(draw("rect", { x: (left + i * wide).toFixed(2), y: y.toFixed(2), width: (wide - gap).toFixed(2), height: Math.max(tall, 0.8).toFixed(2), class: colour(code) }));
    }
  });
  bins.left = left;
  bins.wide = wide;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);
  point();
}

function text(x, y, what, anchor) {
  const element = draw("text", { x, y, "text-anchor": anchor });
  element.textContent = what;
  return element;
}

// A handful of round local times along the axis.
function hours(start, length, left, width, height) {
  const room = Math.max(2, Math.floor((width - left) / 90));
  const every = [10, 15, 30, 60, 120, 180, 240, 360, 720, 1440, 2880].map((m) => m * 60e3).find((ms) => length / ms <= room) || 2880 * 60e3;
  const zone = new Date(start).getTimezoneOffset() * 60e3, parts = [];
  for (let at = Math.ceil((start - zone) / every) * every + zone; at < start + length; at += every) {
    const x = left + ((at - start) / length) * (width - left), d = new Date(at);
    if (x > width - 24 || x < left + 14) continue;
    const label = d.getHours() === 0 && d.getMinutes() === 0 ? `${d.getDate()} ${MONTHS[d.getMonth()]}` : clockTime(at, false);
    parts.push(text(x, height - 5, label, "middle"));
  }
  return parts;
}

function nice(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].map((f) => f * power).find((f) => f >= n);
}

// Says what stands under the pointer, or else the sum.
function point() {
  const { rows, start, step, inside, label, left, wide } = bins, row = rows[pointed], band = $("band");
  if (band) {
    band.setAttribute("visibility", row ? "visible" : "hidden");
    if (row) band.setAttribute("x", left + pointed * wide);
  }
  if (!row) {
    const time = label.replace(" d", " days");
    sayParts("readout", inside.length ? `${plural(inside.length, "event")} in the last ${time}` : `nothing in the last ${time}`);
    return sayPoint();
  }
  const from = start + pointed * step;
  const parts = [...row].sort().flatMap(([code, n], i) => [i ? ", " : "", alone(short(code)), ` × ${count(n)}`]);
  const day = step > 3600e3 ? `${new Date(from).getDate()} ${MONTHS[new Date(from).getMonth()]} ` : "";
  sayParts("readout", `${day}${clockTime(from, false)}–${clockTime(from + step, false)}: `, ...(parts.length ? parts : ["nothing"]));
  sayPoint();
}

// The same to those who cannot see it.
function sayPoint() {
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
function pointAway() {
  pointed = null;
  if (bins) point();
}
$("chart").addEventListener("pointerleave", pointAway);
$("chart").addEventListener("blur", pointAway);
$("chart").addEventListener("keydown", (event) => {
  if (!bins) return;
  if (event.key === "Escape") return pointAway();
  const last = bins.rows.length - 1, at = pointed ?? last + 1;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowDown: at - 1, ArrowUp: at + 1, PageDown: at - 10, PageUp: at + 10, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  pointed = Math.max(0, Math.min(last, to));
  point();
});
new ResizeObserver(() => { if (bins) drawChart(); }).observe($("chart"));

// Codes without what they have in common, and not endless.
const short = (code) => code.replace(/^AUDIOHOOK-/, "").replace(/^(.{40}).+$/s, "$1…");

function showLegend(inside) {
  const sums = new Map();
  for (const x of inside) {
    const code = codeOf(x), entry = sums.get(code) || { n: 0, name: "" };
    entry.n += 1;
    entry.name = x.e.event_name || entry.name;
    sums.set(code, entry);
  }
  const list = [...sums].sort((a, b) => b[1].n - a[1].n || (a[0] < b[0] ? -1 : 1));
  const build = () => make("li", {}, make("button", { type: "button", onclick: (event) => pick("code", event.currentTarget.dataset.what) },
    make("span", { class: "swatch" }), make("b"), make("bdi", { class: "detail" }), make("span", { class: "sum" })));
  fill($("legend"), list, build, (row, [code, { n, name }]) => {
    const button = row.firstElementChild, [swatch, label, detail, sum] = button.children;
    button.dataset.what = code;
    button.title = [`Show the events of ${code}`, name].filter(Boolean).join(": ");
    swatch.setAttribute("class", `swatch ${colour(code)}`);
    label.textContent = code;
    detail.textContent = name;
    sum.textContent = count(n);
  });
}

function showTops(id, inside, field, labelOf, mono) {
  const keyOf = FIELDS[field], sums = new Map();
  for (const x of inside) {
    const what = keyOf(x);
    if (!what) continue;
    const entry = sums.get(what) || { n: 0, last: 0, codes: new Map(), label: "" };
    entry.n += 1;
    entry.last = Math.max(entry.last, x.t);
    entry.label = labelOf(x);
    entry.codes.set(codeOf(x), (entry.codes.get(codeOf(x)) || 0) + 1);
    sums.set(what, entry);
  }
  const list = [...sums].sort((a, b) => b[1].n - a[1].n || b[1].last - a[1].last).slice(0, 6);
  const most = list.length ? list[0][1].n : 1;
  const items = list.map(([what, { n, last, codes, label }]) => {
    const detail = [...codes].sort((a, b) => b[1] - a[1]).map(([code, m]) => (codes.size > 1 ? `${short(code)} × ${count(m)}` : code));
    return { what: String(what), label: String(label), n, share: (100 * n) / most, codes: detail.join(", "), when: ago(now() - last) };
  });
  const build = () => {
    const bar = draw("svg", { viewBox: "0 0 100 3", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(draw("rect", { width: 100, height: 3, class: "base" }), draw("rect", { height: 3, class: "part" }));
    return make("li", {}, make("button", { type: "button", onclick: (event) => pick(field, event.currentTarget.dataset.what) },
      make("span", { class: mono ? "label mono" : "label" }), make("span", { class: "count" }),
      make("span", { class: "detail" }), make("span", { class: "ago" }), bar));
  };
  fill($(id), items, build, (row, item) => {
    const button = row.firstElementChild, [label, sum, detail, when, bar] = button.children;
    button.dataset.what = item.what;
    button.title = item.what;
    label.textContent = item.label;
    sum.textContent = count(item.n);
    detail.textContent = item.codes;
    when.textContent = item.when;
    bar.lastElementChild.setAttribute("width", item.share);
  });
  $(`${id}-none`).hidden = items.length > 0;
}
