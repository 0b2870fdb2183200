// The page of a comparison: concepts, each with every network's best unit for it.
const PER_PAGE = 20;
const page = json("page");
const models = page.models.map((model, number) => {
  const one = unpacked(model);
  let masks;
  one.masks = () =>
    masks === undefined ? (masks = unpacked(json(`masks-${number}`))) : masks;
  one.levels = levels(one);
  return one;
});
const state = {
  query: "",
  concept: null,
  categories: null,
  threshold: 0.04,
  show: "any",
  sort: "iou",
};
const collator = new Intl.Collator("en", { numeric: true });
const highest = page.concepts.map((_, column) =>
  Math.max(...models.map((model) => model.conceptIou[column])),
);
const spread = page.concepts.map(
  (_, column) =>
    highest[column] - Math.min(...models.map((model) => model.conceptIou[column])),
);
const networks = (column) =>
  models.filter((model) => counted(model, column, state.threshold)).length;
const SORTS = {
  iou: (a, b) => highest[b] - highest[a],
  difference: (a, b) => spread[b] - spread[a],
  networks: (a, b) => networks(b) - networks(a) || highest[b] - highest[a],
  concept: (a, b) => collator.compare(page.concepts[a], page.concepts[b]),
};
const SHOWN = {
  any: (count) => count > 0,
  some: (count) => count > 0 && count < models.length,
  all: (count) => count === models.length,
  every: () => true,
};

function cell(model, column) {
  const place = model.conceptPlace[column];
  const head = (text) =>
    element(
      "p",
      { class: "card-head" },
      element("span", { class: "name model" }, model.name),
      element("span", { class: "iou" }, text),
    );
  if (place < 0) {
    return element(
      "div",
      { class: "cell" },
      head("–"),
      element("p", { class: "quiet card-line" }, "no unit overlaps with it"),
    );
  }
  const unit = unitName(model, model.conceptUnit[column]);
  const iou = model.conceptIou[column];
  const isCounted = counted(model, column, state.threshold);
  const strip = element("div", { class: "strip" });
  for (let rank = 0; rank < model.k; rank++) {
    const image = model.topImage[place * model.k + rank];
    const alt = `${model.name}, unit ${unit}, top image ${rank + 1}: ${page.images[image]}`;
    strip.append(picture(image, alt, () => maskOf(model.masks(), place, rank)));
  }
  const made = element(
    "div",
    {
      class: isCounted ? "cell counted" : "cell",
      tabindex: "0",
      role: "group",
      "aria-label": `${model.name}: unit ${unit}, IoU ${iou.toFixed(4)}`,
    },
    head(iou.toFixed(3)),
    element(
      "p",
      { class: "card-line quiet" },
      element("span", {}, `unit ${unit}`),
      element("span", {}, isCounted ? "detected" : "not detected"),
    ),
    strip,
  );
  drawWithin(made);
  return made;
}

function row(column) {
  const category = page.categories[page.category[column]];
  const count = networks(column);
  return element(
    "li",
    { "data-concept": column },
    element(
      "h3",
      {},
      element("a", { href: `#concept-${column}` }, page.concepts[column]),
      element("span", { class: "label" }, swatch(category), category.name),
      element("span", { class: "label" }, `detected by ${count} of ${models.length}`),
    ),
    element("div", { class: "cells" }, ...models.map((model) => cell(model, column))),
  );
}

const showPages = pager(byId("rows"), PER_PAGE, row);

function showList() {
  const matches = matcher(state.query, page.concepts);
  const columns = page.concepts
    .map((_, column) => column)
    .filter((column) =>
      state.concept !== null
        ? column === state.concept
        : matches(column) &&
          state.categories.has(page.category[column]) &&
          SHOWN[state.show](networks(column)),
    )
    .sort((a, b) => SORTS[state.sort](a, b) || a - b);
  showPages(columns);
  byId("result").textContent = many(columns.length, "concept");
  byId("clear").hidden =
    state.query === "" &&
    state.concept === null &&
    state.categories.size === page.categories.length;
}

const listLater = later(80, showList);

function showAll() {
  showTable(models, state.threshold);
  showChanges(models, state.threshold);
  showFormulaChanges(models, state.threshold);
}

// #concept-12 shows one concept alone.
function follow() {
  const parts = /^#concept-(\d+)$/.exec(location.hash);
  const column = parts ? Number(parts[1]) : null;
  const there = column !== null && column < page.concepts.length;
  if (!there && state.concept === null) return;
  state.concept = there ? column : null;
  showList();
  if (there) byId("found").scrollIntoView();
}

function leaveConcept() {
  if (state.concept !== null) history.replaceState(null, "", "#");
  state.concept = null;
}

function setUpTools() {
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("search").value = "";
  byId("search").addEventListener("input", (event) => {
    state.query = event.target.value;
    leaveConcept();
    showList();
  });
  for (const id of ["show", "sort"]) {
    byId(id).value = state[id];
    byId(id).addEventListener("change", (event) => {
      state[id] = event.target.value;
      if (id === "show") leaveConcept();
      showList();
    });
  }
  byId("clear").addEventListener("click", () => {
    state.query = byId("search").value = "";
    leaveConcept();
    for (const box of byId("categories").querySelectorAll("input")) {
      box.checked = true;
      state.categories.add(Number(box.value));
    }
    showList();
  });
  state.categories = setUpCategories((chosen) => {
    state.categories = chosen;
    leaveConcept();
    showList();
  });
}

document.documentElement.style.setProperty("--aspect", `${page.shape[1]} / ${page.shape[0]}`);
setUpTheme();
setUpTools();
setUpPair(models, () => {
  showChanges(models, state.threshold);
  showFormulaChanges(models, state.threshold);
});
const stored = page.thresholds;
state.threshold = stored.includes(0.04) ? 0.04 : stored[Math.floor(stored.length / 2)] ?? 0.04;
setUpThreshold(state.threshold, highest.reduce((a, b) => Math.max(a, b), 0), (value) => {
  state.threshold = value;
  showAll();
  listLater();
});
showAll();
showList();
addEventListener("hashchange", follow);
if (location.hash) follow();
