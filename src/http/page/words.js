"use strict";
// Texts and elements. Whatever comes from an event goes in as text: nothing here, or after it, reads markup.

const $ = (id) => document.getElementById(id);

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function draw(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Only a change touches the page: so nothing flickers, and a selection stays.
function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

// The same for parts, of which those that come from outside stand alone.
function sayParts(id, ...parts) {
  const element = $(id), text = parts.map((part) => part.textContent ?? part).join("");
  if (element.textContent !== text) element.replaceChildren(...parts);
}

// A text from outside: one that turns the direction of writing turns its own alone.
const alone = (text) => make("bdi", {}, String(text));

function sayBig(id, text, unit) {
  const element = $(id), whole = unit ? `${text} ${unit}` : text;
  if (element.dataset.whole === whole) return;
  element.dataset.whole = whole;
  element.replaceChildren(text, ...(unit ? [" ", make("small", {}, unit)] : []));
}

// The rows of a short list, kept and changed in place: so a row that is pointed at or has the focus stays.
function fill(list, items, build, change) {
  while (list.childElementCount > items.length) list.lastElementChild.remove();
  items.forEach((item, i) => {
    if (i >= list.childElementCount) list.append(build());
    const row = list.children[i], key = JSON.stringify(item);
    if (row.dataset.shown === key) return;
    row.dataset.shown = key;
    change(row, item);
  });
}

const count = (n) => Number(n || 0).toLocaleString("en");
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || one + "s"}`;

function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 0.1) return "0 s";
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 119.5) return `${Math.round(s)} s`;
  if (s < 7170) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

const ago = (ms) => (ms < 1000 ? "just now" : `${span(Math.max(1000, ms)).replace(/\.\d/, "")} ago`);

function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${n} B`;
}

const two = (n) => String(n).padStart(2, "0");
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

function clockTime(ms, seconds) {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? ":" + two(d.getSeconds()) : ""}`;
}

function dayTime(ms, now) {
  if (!Number.isFinite(ms)) return "–";
  const d = new Date(ms), today = new Date(now).toDateString() === d.toDateString();
  return (today ? "" : `${d.getDate()} ${MONTHS[d.getMonth()]} `) + clockTime(ms, true);
}

function middle(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : NaN;
}

// What each reason is called; its sentence comes from the collector.
const REASONS = {
  credentials_refused: "Genesys Cloud refuses the credentials",
  not_receiving: "No events can be received",
  disk_write_failed: "Events cannot be written to the disk",
  stalled: "A part of the collector stands still",
  starting: "The collector is starting",
  socket_down: "The socket is down",
  history_forbidden: "The history may not be read",
  history_failing: "The history cannot be read",
  subscription_rejected: "A subscription was rejected",
  elastic_unreachable: "The cluster cannot be reached",
  elastic_refused: "The cluster refuses the documents",
  elastic_backlog_dropped: "Events were dropped before the cluster had them",
  dead_letters: "The cluster refused some events for good",
  unreadable_frames: "Something came that is no event",
  incomplete: "Events are missing from the file",
};
// How a clause begins that says what to do.
const CURE = /(?:^|; |: )(?=(?:add|allow|ask|bring|check|free|give|install|look|make|mend|name|note|nothing to do|raise|report|restart|run|see|set|stop)\b)/;

// A reason's sentence, and what to do, as far as the collector's clauses tell the one from the other.
function understandReason(message) {
  const said = [], cures = [];
  for (const clause of message.split("; ")) {
    const [what, cure] = cutOnce(clause, CURE);
    if (what) said.push(what);
    if (cure) cures.push(cure);
  }
  return said.length ? [said.join("; "), cures.join("; ")] : [message, ""];
}

function cutOnce(text, where) {
  const found = where.exec(text);
  return found ? [text.slice(0, found.index), text.slice(found.index + found[0].length)] : [text, ""];
}

const BAD = new Set(["credentials_refused", "not_receiving", "disk_write_failed", "stalled"]);
