// The view (time range and filters) and its URL, so that a link opens the same view.

const view = { range: "24h", q: "", code: null, integration: null, conversation: null, event: null };

function readView() {
  const query = new URLSearchParams(location.search);
  for (const name of ["code", "integration", "conversation", "event"]) view[name] = query.get(name) || null;
  view.q = query.get("q") || "";
  view.range = SPANS.some((one) => one.id === query.get("range")) ? query.get("range") : "24h";
  $("filter").value = view.q;
}

function setView(change) {
  Object.assign(view, change);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(view)) if (value && !(name === "range" && value === "24h")) query.set(name, value);
  const address = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (address !== location.pathname + location.search) history.replaceState(null, "", address);
  if (!store.health) return;
  showChart();
  applyFilter();
}

const toggle = (pick, value) => setView({ [pick]: view[pick] === value ? null : value });

window.addEventListener("popstate", () => { readView(); setView({}); });

// Updates the whole page after each response.
function show(fresh, first) {
  const known = store.health !== null;
  $("data").hidden = !known;
  $("token").hidden = true;
  if (known || store.silent) showState();
  if (!known) return;
  showFigures();
  showChart();
  showRows(fresh, first);
  if (first) {
    applyFilter();
    const open = view.event && !$("record").open && store.events.find((x) => x.e.id === view.event);
    if (open) openRecord(open);
  }
}

function showToken() {
  $("data").hidden = true;
  $("token").hidden = false;
  $("state").dataset.state = "asking";
  $("live").dataset.live = "no";
  setText("live-text", "locked");
  setText("word", "Locked");
  setText("headline", "Access token required");
  setText("subline", "HTTP_TOKEN is set for this collector.");
  setText("token-note", wrongToken ? "That token is wrong. Look up HTTP_TOKEN in the collector's settings." : "It is kept in this tab only, until the tab is closed.");
  $("token-note").classList.toggle("wrong", wrongToken);
  $("token-text").focus();
}

readView();
if (needsToken && !token) showToken();
else poll();
