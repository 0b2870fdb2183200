// Formulas that one of two networks has and the other has not, by IoU descending.

function formulaList(title, names) {
  const items = names.map((name) => element("li", {}, name));
  return element(
    "section",
    {},
    element("h3", {}, `${title} (${names.length})`),
    names.length
      ? element("ul", { class: "names formulas", tabindex: "0", "aria-label": title }, ...items)
      : element("p", { class: "quiet" }, "none"),
  );
}

function showFormulaChanges(models, threshold) {
  if (!byId("formula-sides")) return;
  const [first, second] = ["pair-first", "pair-second"].map(
    (id) => models[Number(byId(id).value)],
  );
  const above = (model) =>
    model.formulas.filter((_, number) => model.formulaIou[number] > threshold);
  const [before, after] = [above(first), above(second)];
  const [had, has] = [new Set(before), new Set(after)];
  const gained = after.filter((name) => !had.has(name));
  const lost = before.filter((name) => !has.has(name));
  byId("formulas-at").textContent =
    `Formulas: +${gained.length} −${lost.length} at IoU > ${decimals(threshold)}`;
  byId("formula-sides").replaceChildren(
    formulaList(`Formulas gained: only ${second.name}`, gained),
    formulaList(`Formulas lost: only ${first.name}`, lost),
    formulaList("Formulas in both", before.filter((name) => has.has(name))),
  );
}
