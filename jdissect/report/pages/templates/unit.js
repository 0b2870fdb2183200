// A unit's own view: top images with masks, histogram, five best concepts.
const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Returns a unit's concept, or why it has none.
function titleOf(layer, unit) {
  const column = layer.best[unit];
  if (column >= 0) return layer.concepts[column];
  return layer.fires[unit] ? "no concept" : "never fires";
}

function unitAlt(layer, unit, rank) {
  const at = unit * layer.k + rank;
  return (
    `Top image ${rank + 1} of unit ${unitName(layer, unit)}, activation ` +
    `${digits(layer.topValue[at])}: ${page.images[layer.topImage[at]]}`
  );
}

function unitPicture(layer, unit, rank, tag, attributes) {
  const masks = () => maskOf(layer.masks(), unit, rank);
  const place = layer.topImage[unit * layer.k + rank];
  return picture(place, unitAlt(layer, unit, rank), masks, tag, attributes);
}

// T with its index k, in HTML and in SVG.
const cutName = () => [element("i", {}, "T"), element("sub", {}, "k")];

// Pixels per width, as bins are narrow around T_k, on a logarithmic scale. A bin without
// width holds exact zeros; it is labelled in words, and its bar is as high as the highest.
function histogramOf(layer, unit) {
  const data = layer.histograms();
  const counts = data.counts.subarray(unit * data.bins, (unit + 1) * data.bins);
  const first = unit * (data.bins + 1);
  const edges = data.edges.subarray(first, first + data.bins + 1);
  const threshold = layer.threshold[unit];
  const lower = isLower(layer, unit);
  const low = edges[0];
  const high = edges[data.bins];
  const range = high - low || 1;
  const width = 560;
  const bottom = 192;
  const x = (value) => Math.min(Math.max((value - low) / range, 0), 1) * width;
  const densities = [...counts].map((count, bin) => {
    const size = (edges[bin + 1] - edges[bin]) / range;
    return size > 1e-6 ? count / size : 0;
  });
  const there = densities.filter((density) => density > 0).map(Math.log);
  const lowest = Math.min(...there) - 0.7;
  const scale = 170 / (Math.max(...there) - lowest);
  const fires = (value) => (lower ? value < threshold : value > threshold);
  const total = counts.reduce((a, b) => a + b, 0);
  const bars = [];
  let zeros = 0;
  let zero = low;
  densities.forEach((density, bin) => {
    if (!counts[bin]) return;
    const alone = edges[lower ? bin + 1 : bin];
    const size = density ? Math.max(x(edges[bin + 1]) - x(edges[bin]) - 0.6, 0.8) : 5;
    const left = Math.min(x(edges[bin]), width - size);
    if (!density) {
      zeros += counts[bin];
      zero = alone;
    }
    const tall = density ? (Math.log(density) - lowest) * scale : 170;
    const between = density
      ? `${digits(edges[bin])} to ${digits(edges[bin + 1])}`
      : digits(alone);
    const middle = (edges[bin] + edges[bin + 1]) / 2;
    const about = `${between}: ${Math.round(counts[bin]).toLocaleString("en")} pixels`;
    const bar = drawn("rect", {
      class: fires(middle) ? "above" : density ? "below" : "zeros",
      x: left.toFixed(1),
      y: (bottom - tall).toFixed(1),
      width: size.toFixed(1),
      height: tall.toFixed(1),
    });
    bar.append(drawn("title", {}, about));
    bars.push(bar);
  });
  const text = (at, y, anchor, kind, ...words) =>
    drawn("text", { x: at, y, "text-anchor": anchor, class: kind }, ...words);
  const line = x(threshold);
  const anchor = line > width * 0.75 ? "end" : line < width * 0.25 ? "start" : "middle";
  const share = `${digits(zero)}: ${Math.round((100 * zeros) / total)} % of the pixels`;
  return drawn(
    "svg",
    {
      viewBox: `0 0 ${width} ${bottom + 22}`,
      role: "img",
      class: "histogram",
      "aria-label":
        `Histogram of the unit’s activations, from ${digits(low)} to ` +
        `${digits(high)}; T_k is ${digits(threshold)}`,
    },
    ...bars,
    drawn("line", { x1: 0, x2: width, y1: bottom, y2: bottom, class: "axis" }),
    drawn("line", { x1: line, x2: line, y1: 16, y2: bottom, class: "cut" }),
    text(
      line,
      11,
      anchor,
      "cut-label",
      "T",
      drawn("tspan", { dy: 3, "font-size": "0.75em" }, "k"),
      drawn("tspan", { dy: -3 }, ` = ${digits(threshold)}`),
    ),
    text(0, bottom + 4, "start", "tick", zeros && !lower ? share : digits(low)),
    text(width, bottom + 4, "end", "tick", zeros && lower ? share : digits(high)),
  );
}

function bestConcepts(layer, unit, pick) {
  const rows = [];
  const most = layer.fiveIou[unit * layer.five] || 1;
  for (let place = 0; place < layer.five; place++) {
    const at = unit * layer.five + place;
    const iou = layer.fiveIou[at];
    if (!(iou > 0)) break;
    const column = layer.fiveConcept[at];
    const category = page.categories[layer.category[column]];
    const name = element(
      "button",
      { type: "button", class: "link", title: "Show the units of this concept" },
      layer.concepts[column],
    );
    name.addEventListener("click", () => pick(column));
    rows.push(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, name),
        element("td", {}, element("span", { class: "label" }, swatch(category), category.name)),
        element("td", { class: "number" }, iou.toFixed(4)),
        element(
          "td",
          { class: "wide", "aria-hidden": "true" },
          element("span", { class: "bar", swatch: category.color, share: iou / most }),
        ),
        ...layer.scoreNames.map((score) =>
          element("td", { class: "score" }, scoreText(score, scoreOf(layer, unit, place, score))),
        ),
      ),
    );
  }
  if (!rows.length) return element("p", {}, "This unit overlaps with no concept.");
  const head = ["concept", "category", "IoU"].map((word) =>
    element("th", { scope: "col", class: word === "IoU" && "number" }, word),
  );
  const scores = layer.scoreNames.map((score) =>
    element(
      "th",
      { scope: "col", class: "score", title: page.scores[score].about },
      page.scores[score].label,
    ),
  );
  const table = element(
    "table",
    { class: "best" },
    element(
      "thead",
      {},
      element("tr", {}, ...head, element("td", { class: "wide" }), ...scores),
    ),
    element("tbody", {}, ...rows),
  );
  if (!scores.length) return table;
  // Wider than a small screen: it scrolls by itself.
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores of the best concepts" },
    table,
  );
}

// The large pictures; pressing one keeps its mask shown, for touch screens.
function topImages(layer, unit) {
  const figures = [];
  for (let rank = 0; rank < layer.k; rank++) {
    const at = unit * layer.k + rank;
    const one = unitPicture(layer, unit, rank, "button", {
      type: "button",
      "aria-pressed": "false",
      title: "Press to keep the mask shown",
    });
    one.addEventListener("click", () => {
      const shown = one.classList.toggle("shown");
      one.setAttribute("aria-pressed", String(shown));
      one.drawMask();
    });
    const name = page.images[layer.topImage[at]];
    figures.push(
      element(
        "figure",
        {},
        one,
        element(
          "figcaption",
          {},
          element("b", {}, digits(layer.topValue[at])),
          element("span", { class: "name", title: name }, name.split("/").slice(-2).join("/")),
        ),
      ),
    );
  }
  return element("div", { class: "tops" }, ...figures);
}

function unitView(layer, unit, pick) {
  const column = layer.best[unit];
  const category = column >= 0 ? page.categories[layer.category[column]] : null;
  const facts = [
    [["IoU"], layer.iou[unit].toFixed(4)],
    [cutName(), digits(layer.threshold[unit])],
  ];
  if (layer.stability && !Number.isNaN(layer.stability[unit])) {
    const share = `${Math.round(100 * layer.stability[unit])} %`;
    facts.push([["keeps its concept"], `in ${share} of resamples`]);
  }
  const lower = isLower(layer, unit);
  const masks = layer.masks();
  const about =
    masks === null
      ? "There are no masks: the unit’s feature maps were not kept."
      : "Point at an image, or move the focus to it, to see where the unit fires.";
  return [
    element(
      "header",
      { class: "unit-head" },
      element("p", { class: "kind" }, `${layer.name}, unit ${unitName(layer, unit)}`),
      element("h2", { id: "unit-title" }, titleOf(layer, unit)),
      element(
        "ul",
        { class: "unit-facts" },
        category && element("li", { class: "label" }, swatch(category), category.name),
        ...facts.map(([what, value]) =>
          element("li", {}, element("span", { class: "quiet" }, ...what), " ", value),
        ),
      ),
    ),
    unitFindings(layer, unit, pick) ?? "",
    element("h3", {}, `Images of ${lower ? "lowest" : "highest"} activation`),
    element("p", { class: "quiet hint" }, about),
    topImages(layer, unit),
    element(
      "div",
      { class: layer.scoreNames.length ? "one" : "two" },
      element(
        "section",
        {},
        element("h3", {}, "Activations"),
        histogramOf(layer, unit),
        element(
          "p",
          { class: "quiet hint" },
          "Pixels of the upsampled maps of all images, by activation, on a logarithmic " +
            `scale; at most ${digits(100 * layer.quantile)} % ${lower ? "are below" : "exceed"} `,
          ...cutName(),
          ".",
        ),
      ),
      element(
        "section",
        {},
        element("h3", {}, "Best concepts"),
        bestConcepts(layer, unit, pick),
      ),
    ),
  ];
}
