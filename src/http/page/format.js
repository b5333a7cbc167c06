// Formats numbers, durations and times. All times are in the browser's time zone, which the page's header shows.

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

const rounded = (ms) => span(Math.max(1000, ms)).replace(/\.\d/, "");
const ago = (ms) => (ms < 1000 ? "just now" : `${rounded(ms)} ago`);

function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${n} B`;
}

const two = (n) => String(n).padStart(2, "0");
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

const day = (date) => `${date.getDate()} ${MONTHS[date.getMonth()]}`;

function clockTime(ms, seconds) {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? ":" + two(d.getSeconds()) : ""}`;
}

// Omits the day for today.
function dayTime(ms, now) {
  if (!Number.isFinite(ms)) return "–";
  const d = new Date(ms);
  return (new Date(now).toDateString() === d.toDateString() ? "" : `${day(d)} `) + clockTime(ms, true);
}

// The time of a single record, with the year and milliseconds.
function fullTime(ms) {
  if (!Number.isFinite(ms)) return "–";
  const d = new Date(ms);
  return `${day(d)} ${d.getFullYear()} ${clockTime(ms, true)}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

function zoneName() {
  const minutes = -new Date().getTimezoneOffset(), size = Math.abs(minutes);
  const offset = minutes === 0 ? "UTC" : `UTC${minutes < 0 ? "−" : "+"}${Math.floor(size / 60)}${size % 60 ? ":" + two(size % 60) : ""}`;
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  return name && name !== "UTC" && !name.startsWith("Etc/") ? `${name} (${offset})` : offset;
}

const quantile = (sorted, share) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : NaN);

// Starts with a capital, unless the first word is an address or a file name, and ends with a full stop.
const sentence = (text) => (/^[a-z]+\b(?![:/.])/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text) + (/[.!?]$/.test(text) ? "" : ".");

// A code without the common prefix, cut to 40 characters.
const short = (code) => code.replace(/^AUDIOHOOK-/, "").replace(/^(.{40}).+$/s, "$1…");
