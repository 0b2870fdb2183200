// Counts unique concepts at a threshold.

// {concepts: Map column -> its best unit's IoU and number of units, detectors}
function detected(layer, threshold) {
  const concepts = new Map();
  let detectors = 0;
  for (let unit = 0; unit < layer.units; unit++) {
    if (!(layer.iou[unit] > threshold)) continue;
    detectors++;
    const column = layer.best[unit];
    const known = concepts.get(column) || { units: 0, iou: 0 };
    known.units++;
    known.iou = Math.max(known.iou, layer.iou[unit]);
    concepts.set(column, known);
  }
  return { concepts, detectors };
}

function byCategory(layer, columns) {
  const counts = page.categories.map(() => 0);
  for (const column of columns) counts[layer.category[column]]++;
  return counts;
}

function showCounts(layer, threshold, pick) {
  const { concepts, detectors } = detected(layer, threshold);
  const counts = byCategory(layer, concepts.keys());
  byId("unique").textContent = String(concepts.size);
  byId("at").textContent = decimals(threshold);
  byId("layer-name").textContent = layer.name;
  byId("detectors").textContent =
    `${detectors.toLocaleString("en")} of ${many(layer.units, "unit")} ` +
    "are detectors of a concept";
  const most = Math.max(1, ...counts);
  byId("bars").replaceChildren(
    ...page.categories.map((category, number) =>
      element(
        "li",
        { "data-category": category.name },
        element("span", { class: "label" }, swatch(category), category.name),
        element("span", {
          class: "bar",
          swatch: category.color,
          share: counts[number] / most,
        }),
        element("span", { class: "number" }, String(counts[number])),
      ),
    ),
  );
  showCloud(layer, concepts, pick);
}

// Lists all concepts found, those with most units first.
function showCloud(layer, concepts, pick) {
  const found = [...concepts].sort(
    ([a, one], [b, other]) => other.units - one.units || other.iou - one.iou || a - b,
  );
  byId("concepts-title").textContent =
    `The ${many(found.length, "concept")}, by number of units`;
  if (!byId("found-concepts").open) return;
  byId("cloud").replaceChildren(
    ...found.map(([column, { units }]) => {
      const button = element(
        "button",
        { type: "button", class: "chip" },
        swatch(page.categories[layer.category[column]]),
        layer.concepts[column],
        element("span", { class: "quiet" }, String(units)),
        hidden(` ${units === 1 ? "unit" : "units"}`),
      );
      button.addEventListener("click", () => pick(column));
      return element("li", {}, button);
    }),
  );
}
