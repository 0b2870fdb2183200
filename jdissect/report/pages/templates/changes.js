// Counts of every network at the slider's threshold, and differences between two.

// By column: the highest IoU of a unit with this concept as its own; 0 without one.
function levels(model) {
  const found = new Float64Array(page.concepts.length);
  for (let unit = 0; unit < model.units; unit++) {
    const column = model.best[unit];
    if (column >= 0 && model.iou[unit] > found[column]) found[column] = model.iou[unit];
  }
  return found;
}

const counted = (model, column, threshold) => model.levels[column] > threshold;

function showTable(models, threshold) {
  const rows = models.map((model) => {
    const counts = page.categories.map(() => 0);
    let total = 0;
    page.concepts.forEach((_, column) => {
      if (!counted(model, column, threshold)) return;
      counts[page.category[column]]++;
      total++;
    });
    let detectors = 0;
    for (const iou of model.iou) if (iou > threshold) detectors++;
    const error = model.error === null ? "–" : `${model.error.toFixed(2)} %`;
    const cells = [
      ...page.categories.map((category, number) => [category.name, counts[number]]),
      ["total", total],
      ["detectors", detectors],
      ["top-1 error", error],
    ];
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, model.name),
      ...cells.map(([label, value]) =>
        element("td", { "data-label": label }, String(value)),
      ),
    );
  });
  byId("live").replaceChildren(...rows);
  byId("at").textContent = decimals(threshold);
}

function nameList(title, columns, about) {
  const names = columns.map((column) =>
    element(
      "li",
      { class: "label" },
      swatch(page.categories[page.category[column]]),
      element("a", { href: `#concept-${column}` }, page.concepts[column]),
      hidden(` (${page.categories[page.category[column]].name})`),
    ),
  );
  return element(
    "section",
    {},
    element("h3", {}, `${title} (${columns.length})`),
    names.length
      ? element("ul", { class: "names", tabindex: "0", "aria-label": title }, ...names)
      : element("p", { class: "quiet" }, about),
  );
}

function showChanges(models, threshold) {
  if (!byId("sides")) return;
  const first = models[Number(byId("pair-first").value)];
  const second = models[Number(byId("pair-second").value)];
  const only = (one, other) =>
    page.concepts
      .map((_, column) => column)
      .filter((c) => counted(one, c, threshold) && (!other || !counted(other, c, threshold)))
      .sort((a, b) => one.levels[b] - one.levels[a]);
  const both = only(first, null).filter((c) => counted(second, c, threshold));
  const gained = only(second, first);
  const lost = only(first, second);
  byId("pair-at").textContent =
    `+${gained.length} −${lost.length} at IoU > ${decimals(threshold)}`;
  byId("sides").replaceChildren(
    nameList(`Gained: only ${second.name}`, gained, "none"),
    nameList(`Lost: only ${first.name}`, lost, "none"),
    nameList("In both", both, "none"),
  );
}

function setUpPair(models, changed) {
  if (!byId("sides")) return;
  const options = () =>
    models.map((model, number) => element("option", { value: number }, model.name));
  for (const [id, start] of [["pair-first", 0], ["pair-second", 1]]) {
    byId(id).replaceChildren(...options());
    byId(id).value = String(start);
    byId(id).addEventListener("change", changed);
  }
}
