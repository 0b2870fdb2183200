// What other commands found: formulas, chance, verified labels, more scores.
const ALPHA = 0.05; // false discovery rate of "above chance"
const [UNJUDGED, NOT_VERIFIED, VERIFIED] = [1, 2, 3];

const aboveChance = (layer, unit) => layer.q[unit] <= ALPHA;
const isVerified = (layer, unit) => layer.verified[unit] === VERIFIED;
const percent = (share) => `${Math.round(100 * share)} %`;
const interval = (low, high, places) =>
  Number.isNaN(low) ? "" : ` (${low.toFixed(places)} to ${high.toFixed(places)})`;
// A p-value, without more digits than it has.
const small = (value) =>
  value >= 0.001 ? String(Number(value.toPrecision(2))) : value.toExponential(0);

// A score of a unit's concept in one place of its best; NaN if it is not known.
function scoreOf(layer, unit, place, name) {
  const scores = layer.scores();
  const at = scores === null ? -1 : scores.names.indexOf(name);
  if (at < 0 || place >= scores.shown) return NaN;
  return scores.values[(unit * scores.shown + place) * scores.names.length + at];
}

function scoreText(name, value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "−∞";
  return value.toFixed(page.scores[name].decimals).replace("-", "−");
}

// {mean, high} of a count by chance at a threshold, of one at most a step lower.
function byChance(layer, kind, threshold) {
  const at = Math.floor(threshold * layer.chanceStep + 1e-6);
  const there = at < layer[kind].length;
  return { mean: there ? layer[kind][at] : 0, high: there ? layer[`${kind}High`][at] : 0 };
}

const rounded = (mean) => (mean < 10 ? mean.toFixed(1) : String(Math.round(mean)));

// The lines below the counts: what is known at the slider's threshold.
function foundLines(layer, threshold) {
  const units = Array.from({ length: layer.units }, (_, unit) => unit);
  const there = units.filter((unit) => layer.iou[unit] > threshold);
  const lines = [];
  if (layer.q) {
    const detectors = byChance(layer, "chanceDetectors", threshold);
    const concepts = byChance(layer, "chanceConcepts", threshold);
    lines.push([
      "By chance alone",
      `${many(detectors, "detector")} and ${many(concepts, "unique concept")}; ` +
        `${there.filter((unit) => aboveChance(layer, unit)).length} of the ` +
        `${there.length} detectors are above chance`,
    ]);
  }
  if (layer.formula) {
    const held = units.filter((unit) => layer.formulaIou[unit] > threshold);
    const different = new Set(held.map((unit) => layer.formula[unit]));
    different.delete("");
    const means = layer.formulaMeans.map((mean) => mean.toFixed(3)).join(", ");
    lines.push([
      "By formulas",
      `${held.length} detectors of ${different.size} formulas ` +
        `(${layer.formulaSearch}: mean IoU ${means} by length)`,
    ]);
  }
  if (layer.verified) {
    const judged = there.filter((unit) => layer.verified[unit] >= NOT_VERIFIED);
    const right = judged.filter((unit) => isVerified(layer, unit)).length;
    lines.push([
      "Verified",
      judged.length
        ? `${percent(right / judged.length)} of the ${judged.length} detectors that ` +
          "could be judged"
        : "no detector could be judged",
    ]);
  }
  return lines;

  function many(count, word) {
    return `${rounded(count.mean)} ${word}s (95 %: at most ${count.high})`;
  }
}

function showFound(layer, threshold) {
  byId("findings").replaceChildren(
    ...foundLines(layer, threshold).map(([what, text]) =>
      element("li", {}, element("b", {}, `${what}: `), text),
    ),
  );
  byId("missing").textContent = layer.missing;
}

function chanceOf(layer, unit, pick) {
  const rows = [];
  const values = `p ${small(layer.p[unit])}, q ${small(layer.q[unit])}`;
  rows.push([
    "chance",
    aboveChance(layer, unit)
      ? `above chance: ${values}`
      : element("span", {}, element("b", {}, "not above chance"), `: ${values}`),
  ]);
  const size = layer.setSize[unit];
  if (size === 1) rows.push(["may as well be", "no other concept"]);
  if (size > 1) {
    const names = element("span");
    for (let at = layer.setStart[unit] + 1; at < layer.setStart[unit + 1]; at++) {
      const column = layer.setConcept[at];
      const category = page.categories[layer.category[column]];
      const button = element("button", { type: "button", class: "link" }, layer.concepts[column]);
      button.addEventListener("click", () => pick(column));
      const last = at + 1 === layer.setStart[unit + 1];
      names.append(swatch(category), " ", button, last ? "" : ", ");
    }
    const more = size - (layer.setStart[unit + 1] - layer.setStart[unit]);
    if (more) names.append(` and ${more} more`);
    rows.push(["may as well be", names]);
  }
  return rows;
}

// How a label was judged, after a number of pairs or images.
const WAYS = {
  removed: "pairs of pictures with and without it",
  repainted: "pairs of pictures with it in another color or material",
  "held out": "images with it that did not choose the label",
};

function verifiedOf(layer, unit) {
  const state = layer.verified[unit];
  const note = layer.notes[layer.note[unit]];
  if (!state) return [];
  if (state === UNJUDGED) return [["label", `not judged${note ? `: ${note}` : ""}`]];
  const way = layer.ways[layer.way[unit]];
  const images = layer.verifiedImages[unit].toLocaleString("en");
  return [
    [
      "label",
      `${state === VERIFIED ? "verified" : "not verified"}: AUC ${layer.auc[unit].toFixed(2)}` +
        `${interval(layer.aucLow[unit], layer.aucHigh[unit], 2)}, ` +
        `control ${layer.control[unit].toFixed(2)}; ` +
        `${images} ${WAYS[way] ?? way}`,
    ],
  ];
}

function formulaOf(layer, unit) {
  if (!layer.formula[unit]) return [];
  const fitted = layer.formulaFitted[unit];
  return [
    [
      "formula",
      element(
        "span",
        {},
        element("b", {}, layer.formula[unit]),
        ` IoU ${layer.formulaIou[unit].toFixed(4)}` +
          interval(layer.formulaLow[unit], layer.formulaHigh[unit], 3) +
          (Number.isNaN(fitted) ? "" : `, cross-fitted ${fitted.toFixed(3)}`),
      ),
    ],
  ];
}

// The lines below a unit's name; null if nothing is known.
function unitFindings(layer, unit, pick) {
  const rows = [
    ...(layer.formula ? formulaOf(layer, unit) : []),
    ...(layer.q ? chanceOf(layer, unit, pick) : []),
    ...(layer.verified ? verifiedOf(layer, unit) : []),
  ];
  if (!rows.length) return null;
  return element(
    "dl",
    { class: "found" },
    ...rows.flatMap(([what, value]) => [
      element("dt", {}, what),
      element("dd", {}, value),
    ]),
  );
}

// Sort orders that a layer may have: {name: {label, has(layer), value(layer, unit), text}}.
const MORE_SORTS = {
  formula: {
    label: "IoU of the formula",
    has: (layer) => Boolean(layer.formula),
    value: (layer, unit) => layer.formulaIou[unit],
    text: (value) => value.toFixed(3),
  },
  p: {
    label: "p-value",
    has: (layer) => Boolean(layer.q),
    value: (layer, unit) => -layer.p[unit],
    text: (value) => `p ${small(-value)}`,
  },
  auc: {
    label: "verified AUC",
    has: (layer) => Boolean(layer.verified),
    value: (layer, unit) => layer.auc[unit],
    text: (value) => (Number.isNaN(value) ? "–" : `AUC ${value.toFixed(2)}`),
  },
};
// Adds a sort order per score.
function addScores() {
  for (const [name, { label }] of Object.entries(page.scores)) {
    MORE_SORTS[name] = {
      label,
      has: (layer) => layer.scoreNames.includes(name),
      value: (layer, unit) => (layer.best[unit] < 0 ? NaN : scoreOf(layer, unit, 0, name)),
      text: (value) => `${label} ${scoreText(name, value)}`,
    };
  }
}

// Highest first, units without a value last.
function sortedBy(name) {
  const { value } = MORE_SORTS[name];
  const of = (unit) => {
    const found = value(layer, unit);
    return Number.isNaN(found) ? -Infinity : found;
  };
  return (a, b) => {
    const [one, other] = [of(a), of(b)];
    return one === other ? layer.iou[b] - layer.iou[a] : other - one;
  };
}

// Offers the sort orders and filters that the layer has.
function offerFound(layer) {
  const kept = Object.entries(MORE_SORTS).filter(([, one]) => one.has(layer));
  const option = ([name, one]) => element("option", { value: name }, one.label);
  const own = kept.filter(([name]) => !(name in page.scores));
  const scores = kept.filter(([name]) => name in page.scores);
  for (const one of byId("sort").querySelectorAll(".more")) one.remove();
  for (const entry of own) {
    const made = option(entry);
    made.className = "more";
    byId("sort").append(made);
  }
  if (scores.length) {
    byId("sort").append(
      element("optgroup", { class: "more", label: "score of the concept" }, ...scores.map(option)),
    );
  }
  byId("above-chance").closest("label").hidden = !layer.q;
  byId("only-verified").closest("label").hidden = !layer.verified;
}
