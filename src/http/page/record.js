// Shows one whole record, as in the file.

let current = null, currentText = "";

const isEscaped = (text, at) => {
  let slashes = 0;
  while (text.charCodeAt(at - 1 - slashes) === 92) slashes += 1;
  return slashes % 2 === 1;
};

// Splits JSON into indented parts. It works on the text, since parsing would change 1.0 to 1 and round long numbers.
function pretty(raw) {
  const out = [];
  let depth = 0, at = 0;
  const line = () => out.push("\n", "  ".repeat(Math.min(depth, 40)));
  while (at < raw.length) {
    const c = raw[at];
    if (c === '"') {
      let end = at;
      do end = raw.indexOf('"', end + 1); while (end > 0 && isEscaped(raw, end));
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

// Characters that are written from right to left, or that change the writing direction.
const TURNS = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;

async function openRecord(x) {
  const { e } = x;
  current = x;
  currentText = "";
  setParts("record-when", `${fullTime(x.t)} · `, isolated(codeOf(x)));
  setText("record-title", String(e.event_name || codeOf(x)));
  setText("record-text", String(e.description || ""));
  showMeaning($("record-meaning"), codeOf(x), []);
  const fields = [["Integration", e.entity_name], ["Integration id", e.entity_id], ["Conversation", e.conversation_id], ["Error code", e.error_code],
    ["Received", Number.isFinite(x.r) && `${fullTime(x.r)}${e.source ? `, by ${sourceName(e)}` : ""}`], ["Record id", e.id]];
  $("record-fields").replaceChildren(...fields.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, isolated(value))]));
  setText("record-json", "Loading the record …");
  setText("copied", "");
  $("show-conversation").hidden = !e.conversation_id;
  $("record-json").scrollTop = 0;
  if (!$("record").open) $("record").showModal();
  setView({ event: e.id || null });
  const text = e.id ? await fetchRecord(e.id) : null;
  if (current !== x) return;
  currentText = text || "";
  const gone = `This record is no longer in memory. Print it with: audiohook-collector events --format json --event-id ${codeOf(x)}`;
  setParts("record-json", ...(text ? pretty(text).map((part) => (TURNS.test(part) ? isolated(part) : part)) : [gone]));
}

function curl({ e }) {
  // An unpaired surrogate cannot be encoded in a URL.
  const whole = typeof e.id === "string" && e.id.isWellFormed?.() !== false;
  // Escape single quotes, since the shell argument is in single quotes.
  const query = whole ? `id=${encodeURIComponent(e.id).replace(/'/g, "%27")}` : "limit=1000";
  const header = token ? ' -H "Authorization: Bearer $HTTP_TOKEN"' : "";
  return `curl -s${header} '${new URL("events", location.href).href}?${query}'`;
}

async function copy(what, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS, scripts can copy only a selection.
    const area = make("textarea", { readonly: "" });
    area.value = text;
    $("record").append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  setText("copied", done ? `${what} copied` : "the browser did not allow it");
}

$("copy-json").addEventListener("click", () => copy("JSON", pretty(currentText).join("")));
$("copy-curl").addEventListener("click", () => copy("curl", curl(current)));
$("show-conversation").addEventListener("click", () => {
  $("record").close();
  setView({ conversation: String(current.e.conversation_id) });
});
$("record-close").addEventListener("click", () => $("record").close());
$("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });
$("record").addEventListener("close", () => setView({ event: null }));
