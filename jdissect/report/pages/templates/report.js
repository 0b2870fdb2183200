// The page of a run: finds units, and opens one at #unit-12 or #LAYER/unit-12.
const PER_PAGE = 48;
const page = json("page");
const state = {
  query: "",
  concept: null, // a column, if one concept is shown
  categories: null,
  threshold: 0.04,
  below: false,
  aboveChance: false,
  verified: false,
  sort: "iou",
};
const layers = page.layers.map((layer, number) => ({ ...layer, number }));
let layer = null;
let matches = null;
let order = []; // the units of the list
let pushed = false; // whether the open unit has its own history entry

function ready(number) {
  const one = layers[number];
  if (!one.best) {
    Object.assign(one, unpacked(json(`units-${number}`)));
    const lazy = (kind) => {
      let found;
      return () => (found === undefined ? (found = unpacked(json(`${kind}-${number}`))) : found);
    };
    one.masks = lazy("masks");
    one.histograms = lazy("histograms");
    one.scores = lazy("scores");
  }
  return one;
}

const several = layers.length > 1;
const address = (unit) =>
  `#${several ? `${encodeURIComponent(layer.name)}/` : ""}unit-${unitName(layer, unit)}`;

const collator = new Intl.Collator("en", { numeric: true });
const nameOf = (unit) => (layer.best[unit] < 0 ? "\uffff" : layer.concepts[layer.best[unit]]);
const strength = (unit) => (isLower(layer, unit) ? -1 : 1) * layer.topValue[unit * layer.k];
const SORTS = {
  iou: (a, b) => layer.iou[b] - layer.iou[a],
  "iou-up": (a, b) => layer.iou[a] - layer.iou[b],
  concept: (a, b) => collator.compare(nameOf(a), nameOf(b)) || layer.iou[b] - layer.iou[a],
  unit: (a, b) => a - b,
  activation: (a, b) => strength(b) - strength(a),
  stability: (a, b) => (layer.stability[b] || 0) - (layer.stability[a] || 0),
};

function found() {
  const named = unitsNamed(layer, state.query.trim().replace(/^#/, ""));
  const wanted = (unit) => {
    const column = layer.best[unit];
    if (named) return named.includes(unit);
    if (!state.below && !(layer.iou[unit] > state.threshold)) return false;
    if (state.aboveChance && layer.q && !aboveChance(layer, unit)) return false;
    if (state.verified && layer.verified && !isVerified(layer, unit)) return false;
    if (column < 0) return state.query === "" && state.concept === null;
    if (!state.categories.has(layer.category[column])) return false;
    if (state.concept !== null) return column === state.concept;
    return matches(column);
  };
  const units = Array.from({ length: layer.units }, (_, unit) => unit).filter(wanted);
  const sorted = SORTS[state.sort] ?? sortedBy(state.sort);
  return units.sort((a, b) => sorted(a, b) || a - b);
}

// The number on a card: the IoU, or what the list is sorted by.
function shownValue(unit) {
  const sort = MORE_SORTS[state.sort];
  if (!sort) return [hidden("IoU "), layer.iou[unit].toFixed(3)];
  return [sort.text(sort.value(layer, unit))];
}

function card(unit) {
  const column = layer.best[unit];
  const category = column >= 0 ? page.categories[layer.category[column]] : null;
  const strip = element("span", { class: "strip" });
  for (let rank = 0; rank < layer.k; rank++) {
    strip.append(unitPicture(layer, unit, rank));
  }
  const spoken = [
    titleOf(layer, unit),
    category ? category.name : "",
    `IoU ${layer.iou[unit].toFixed(3)}`,
    `unit ${unitName(layer, unit)}`,
  ];
  const link = element(
    "a",
    { href: address(unit), class: "card", "aria-label": spoken.filter(Boolean).join(", ") },
    element(
      "span",
      { class: "card-head" },
      element("span", { class: "name" }, titleOf(layer, unit)),
      element("span", { class: "iou" }, ...shownValue(unit)),
    ),
    state.sort === "formula" && layer.formulaLength[unit] > 1
      ? element("span", { class: "card-line formula" }, layer.formula[unit])
      : null,
    element(
      "span",
      { class: "card-line quiet" },
      category && element("span", { class: "label" }, swatch(category), category.name),
      element("span", {}, `unit ${unitName(layer, unit)}`),
    ),
    strip,
  );
  drawWithin(link);
  return element("li", { "data-unit": unit }, link);
}

const showPages = pager(byId("cards"), PER_PAGE, card);

function showList() {
  matches = matcher(state.query, layer.concepts);
  order = found();
  showPages(order);
  const about = state.concept === null ? "" : ` of “${layer.concepts[state.concept]}”`;
  byId("result").textContent = `${many(order.length, "unit")}${about}`;
  const narrowed =
    state.query !== "" ||
    state.concept !== null ||
    state.aboveChance ||
    state.verified ||
    state.categories.size < page.categories.length;
  byId("clear").hidden = !narrowed;
  showClosest();
}

// For a search that finds no unit: the units closest to such concepts.
function showClosest() {
  const list = byId("closest");
  list.hidden = order.length > 0 || (state.query === "" && state.concept === null);
  if (list.hidden) return;
  const columns = layer.concepts
    .map((_, column) => column)
    .filter((column) =>
      state.concept !== null ? column === state.concept : matches(column),
    )
    .filter((column) => layer.conceptIou[column] > 0)
    .sort((a, b) => layer.conceptIou[b] - layer.conceptIou[a])
    .slice(0, 8);
  list.replaceChildren(
    ...columns.map((column) => {
      const unit = layer.conceptUnit[column];
      return element(
        "li",
        {},
        `closest to “${layer.concepts[column]}”: `,
        element("a", { href: address(unit) }, `unit ${unitName(layer, unit)}`),
        `, IoU ${layer.conceptIou[column].toFixed(4)}`,
      );
    }),
  );
}

function pick(column) {
  state.concept = column;
  state.query = byId("search").value = "";
  if (byId("unit").open) byId("unit").close();
  showList();
  byId("found").scrollIntoView();
}

function showLayer(number) {
  layer = ready(number);
  state.concept = null;
  for (const table of document.querySelectorAll("table.counts")) {
    table.hidden = Number(table.dataset.layer) !== number;
  }
  const radio = document.querySelector(`#layers input[value="${number}"]`);
  if (radio) radio.checked = true;
  byId("sort").querySelector("[value=stability]").hidden = !layer.stability;
  offerFound(layer);
  const has = MORE_SORTS[state.sort]?.has(layer) ?? (state.sort !== "stability" || layer.stability);
  byId("sort").value = state.sort = has ? state.sort : "iou";
  for (const [id, key, there] of [
    ["above-chance", "aboveChance", layer.q],
    ["only-verified", "verified", layer.verified],
  ]) {
    if (!there) byId(id).checked = state[key] = false;
  }
  showCounts(layer, state.threshold, pick);
  showFound(layer, state.threshold);
  showList();
}

// Returns the unit that the address names, as [layer number, unit].
function named() {
  const parts = /^#(?:(.+)\/)?unit-(\d+[+-]?)$/.exec(location.hash);
  if (!parts) return null;
  let number = layer.number;
  if (parts[1] !== undefined) {
    let name = parts[1];
    try {
      name = decodeURIComponent(name);
    } catch {
      return null;
    }
    number = layers.findIndex((one) => one.name === name);
  }
  const [unit] = (number >= 0 && unitsNamed(layers[number], parts[2])) || [];
  return unit === undefined ? null : [number, unit];
}

async function follow() {
  await complete;
  const place = named();
  const dialog = byId("unit");
  if (!place) {
    if (dialog.open) dialog.close();
    return;
  }
  if (place[0] !== layer.number) showLayer(place[0]);
  const unit = place[1];
  byId("unit-body").replaceChildren(...unitView(layer, unit, pick));
  const at = order.indexOf(unit);
  byId("unit-previous").disabled = at <= 0;
  byId("unit-next").disabled = at < 0 || at === order.length - 1;
  showAllMasks();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  // A dialog's images are visible; browsers do not always notify an observer.
  byId("unit-body").querySelectorAll("img[data-place]").forEach(load);
}

function step(by) {
  const place = named();
  const next = place && order[order.indexOf(place[1]) + by];
  if (place && order.includes(place[1]) && next !== undefined) {
    location.replace(address(next));
  }
}

function showAllMasks() {
  const shown = byId("all-masks").checked;
  for (const one of byId("unit-body").querySelectorAll(".picture")) {
    one.classList.toggle("shown", shown);
    one.setAttribute("aria-pressed", String(shown));
    if (shown) one.drawMask();
  }
}

function setUpUnit() {
  const dialog = byId("unit");
  // Closing a unit goes back in the history, and must not scroll the page below.
  history.scrollRestoration = "manual";
  byId("cards").addEventListener("click", () => (pushed = true));
  byId("closest").addEventListener("click", () => (pushed = true));
  dialog.addEventListener("close", () => {
    if (!named()) return;
    if (pushed) history.back();
    else history.replaceState(null, "", "#");
    pushed = false;
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  byId("unit-close").addEventListener("click", () => dialog.close());
  byId("unit-previous").addEventListener("click", () => step(-1));
  byId("unit-next").addEventListener("click", () => step(1));
  byId("all-masks").addEventListener("change", showAllMasks);
  addEventListener("hashchange", follow);
}

function setUpTools() {
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("search").value = "";
  byId("search").addEventListener("input", (event) => {
    state.query = event.target.value;
    state.concept = null;
    showList();
  });
  byId("sort").value = state.sort;
  byId("sort").addEventListener("change", (event) => {
    state.sort = event.target.value;
    complete.then(showList);
  });
  for (const [id, key] of [["above-chance", "aboveChance"], ["only-verified", "verified"]]) {
    byId(id).checked = false;
    byId(id).addEventListener("change", (event) => {
      state[key] = event.target.checked;
      showList();
    });
  }
  byId("below").checked = false;
  byId("below").addEventListener("change", (event) => {
    state.below = event.target.checked;
    showList();
  });
  byId("clear").addEventListener("click", () => {
    state.query = byId("search").value = "";
    state.concept = null;
    byId("above-chance").checked = state.aboveChance = false;
    byId("only-verified").checked = state.verified = false;
    for (const box of byId("categories").querySelectorAll("input")) {
      box.checked = true;
      state.categories.add(Number(box.value));
    }
    showList();
  });
  byId("found-concepts").addEventListener("toggle", () =>
    showCounts(layer, state.threshold, pick),
  );
  byId("layers")?.addEventListener("change", (event) =>
    complete.then(() => showLayer(Number(event.target.value))),
  );
  state.categories = setUpCategories((chosen) => {
    state.categories = chosen;
    showList();
  });
}

document.documentElement.style.setProperty("--aspect", `${page.shape[1]} / ${page.shape[0]}`);
addScores();
setUpTheme();
setUpTools();
setUpUnit();
layer = ready(0);
const stored = layer.thresholds;
const listLater = later(60, showList);
state.threshold = stored.includes(0.04) ? 0.04 : stored[Math.floor(stored.length / 2)] ?? 0.04;
setUpThreshold(
  state.threshold,
  layers.length === 1 ? layer.iou.reduce((a, b) => Math.max(a, b), 0) : 0.5,
  (value) => {
    state.threshold = value;
    showCounts(layer, value, pick);
    showFound(layer, value);
    listLater();
  },
);
showLayer(0);
if (location.hash) follow();
