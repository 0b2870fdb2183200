// Shared by the lists of both kinds of page: slider, category filter, pages.

// Connects the slider and its number field; calls `changed` with the threshold.
function setUpThreshold(start, highest, changed) {
  const range = byId("threshold");
  const number = byId("threshold-number");
  range.max = String(Math.max(0.1, Math.ceil(highest * 100) / 100));
  const set = (text, from) => {
    const value = Number(text);
    if (text === "" || !(value >= 0 && value <= 1)) return;
    if (from !== range) range.value = String(value);
    if (from !== number) number.value = String(value);
    changed(value);
  };
  range.addEventListener("input", () => set(range.value, range));
  number.addEventListener("input", () => set(number.value, number));
  number.addEventListener("change", () => {
    if (!number.checkValidity() || number.value === "") number.value = range.value;
  });
  range.value = number.value = String(start);
}

// Calls `changed` with the set of checked category numbers.
function setUpCategories(changed) {
  const boxes = [...byId("categories").querySelectorAll("input")];
  for (const box of boxes) box.checked = true;
  byId("categories").addEventListener("change", () =>
    changed(new Set(boxes.filter((b) => b.checked).map((b) => Number(b.value)))),
  );
  return new Set(boxes.map((box) => Number(box.value)));
}

// Shows `items` one page at a time, rendered by `make(item)`.
function pager(container, size, make) {
  const nav = byId("pager");
  let items = [];
  let at = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(items.length / size));
    at = Math.min(Math.max(at, 0), pages - 1);
    near.disconnect();
    container.replaceChildren(...items.slice(at * size, (at + 1) * size).map(make));
    nav.hidden = pages === 1;
    byId("page-number").textContent = `Page ${at + 1} of ${pages}`;
    byId("previous-page").disabled = at === 0;
    byId("next-page").disabled = at === pages - 1;
  };
  const turn = (by) => {
    at += by;
    show();
    byId("found").scrollIntoView();
    byId("found").focus({ preventScroll: true });
  };
  byId("previous-page").addEventListener("click", () => turn(-1));
  byId("next-page").addEventListener("click", () => turn(1));
  return (found) => {
    items = found;
    at = 0;
    show();
  };
}

// Returns a test of a column: whether its concept contains the words of a search.
function matcher(query, names) {
  const text = query.trim().toLowerCase();
  const lower = names.map((name) => name.toLowerCase());
  return (column) => column >= 0 && lower[column].includes(text);
}
