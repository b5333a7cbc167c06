// Elements. Whatever comes from an event goes in as text: nothing here, or after it, reads markup.

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

// Only a change touches the page, so that nothing flickers and a selection stays.
function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function setParts(id, ...parts) {
  const element = $(id), text = parts.map((part) => part.textContent ?? part).join("");
  if (element.textContent !== text) element.replaceChildren(...parts);
}

// A text from outside: one that changes the direction of writing changes only its own.
const isolated = (text) => make("bdi", {}, String(text));

function setBig(id, text, unit) {
  const element = $(id), whole = unit ? `${text} ${unit}` : text;
  if (element.dataset.whole === whole) return;
  element.dataset.whole = whole;
  element.replaceChildren(text, ...(unit ? [" ", make("small", {}, unit)] : []));
}

// The rows of a short list, changed in place, so that a row that is pointed at or has the focus stays.
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
