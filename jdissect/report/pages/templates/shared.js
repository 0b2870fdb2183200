// Names may be anything: they are set as text, never as HTML.
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null) continue;
    if (name === "swatch") made.style.setProperty("--swatch", value);
    else if (name === "share") made.style.setProperty("--share", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const hidden = (text) => element("span", { class: "hidden" }, text);
const swatch = (category) =>
  element("span", { class: "swatch", swatch: category.color });

// What follows the number in units' names: "", or "-", or "+" and "-".
const endsOf = (layer) => layer.ends.split(" ");

// A unit's name: its number, or `12+` and `12-` where both ends of unit 12 are counted.
function unitName(layer, unit) {
  const ends = endsOf(layer);
  return `${Math.floor(unit / ends.length)}${ends[unit % ends.length]}`;
}

// Whether the unit fires where its activation is low.
const isLower = (layer, unit) => unitName(layer, unit).endsWith("-");

// The units that a text names; `12` names every end of unit 12. Null: it is no name.
function unitsNamed(layer, text) {
  const parts = /^(\d+)([+-]?)$/.exec(text);
  if (!parts) return null;
  return endsOf(layer)
    .map((end, place, ends) => [end, Number(parts[1]) * ends.length + place])
    .filter(([end, unit]) => unit < layer.units && (parts[2] === "" || parts[2] === end))
    .map(([, unit]) => unit);
}

// "1 unit", "2 units"
const many = (count, word) =>
  `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
// A threshold with three decimals, or with all of its own.
const decimals = (value) => {
  const text = value.toFixed(3);
  return Number(text) === value ? text : String(value);
};
const digits = (value) => Number(value.toPrecision(4)).toString();

// The whole document is parsed, so elements after the script can be used.
const complete = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve());
});

const json = (id) => JSON.parse(byId(id).textContent);

const ARRAYS = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i4: Int32Array,
  f4: Float32Array,
  f8: Float64Array,
};

function typed([kind, text]) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return new ARRAYS[kind](bytes.buffer);
}

// Returns a copy of the block's object with its packed arrays and texts unpacked.
function unpacked(content) {
  if (content === null) return null;
  const isPacked = (value) =>
    Array.isArray(value) && value.length === 2 && typeof value[1] === "string";
  const plain = (value) => (isPacked(value) ? typed(value) : value?.texts ?? value);
  const entries = Object.entries(content);
  return Object.fromEntries(entries.map(([key, value]) => [key, plain(value)]));
}

function later(wait, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

function setUpTheme() {
  const button = byId("theme");
  const kinds = ["auto", "light", "dark"];
  let kind = "auto";
  try {
    kind = localStorage.getItem("jdissect-theme") || "auto";
  } catch {
    // Pages from disk may have no storage.
  }
  const show = () => {
    if (!kinds.includes(kind)) kind = "auto";
    if (kind === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = kind;
    button.textContent = `Theme: ${kind}`;
  };
  button.addEventListener("click", () => {
    kind = kinds[(kinds.indexOf(kind) + 1) % kinds.length];
    try {
      localStorage.setItem("jdissect-theme", kind);
    } catch {
      // As above.
    }
    show();
  });
  button.hidden = false;
  show();
}
