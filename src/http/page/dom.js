// Helpers for elements. Data of events is inserted only as text: no script of the page parses markup.

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

function makeSvg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Changes the element only if the text differs, so that nothing flickers and a selection stays.
function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function setParts(id, ...parts) {
  const element = $(id), text = parts.map((part) => part.textContent ?? part).join("");
  if (element.textContent !== text) element.replaceChildren(...parts);
}

// Isolates text of an event, so that characters that change the writing direction affect only that text.
const isolated = (text) => make("bdi", {}, String(text));

function setBig(id, text, unit) {
  const element = $(id), whole = unit ? `${text} ${unit}` : text;
  if (element.dataset.whole === whole) return;
  element.dataset.whole = whole;
  element.replaceChildren(text, ...(unit ? [" ", make("small", {}, unit)] : []));
}

// Updates the rows of a short list in place, so that a row under the pointer or with the focus stays.
function fillList(list, items, build, change) {
  while (list.childElementCount > items.length) list.lastElementChild.remove();
  items.forEach((item, i) => {
    if (i >= list.childElementCount) list.append(build());
    const row = list.children[i], key = JSON.stringify(item);
    if (row.dataset.shown === key) return;
    row.dataset.shown = key;
    change(row, item);
  });
}
