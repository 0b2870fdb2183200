// Thumbnails and the masks over them, both made shortly before they are visible.
const PIXEL = 4; // canvas pixels per mask pixel
const OUTLINE = "#ffe14d";
const opened = new Map(); // blocks by id

function openBlock(id) {
  if (!opened.has(id)) opened.set(id, byId(id) && json(id));
  return opened.get(id);
}

function pictureUrl(place) {
  if (!page.mime) return "";
  const some = openBlock(`pictures-${Math.floor(place / page.chunk)}`);
  const text = some ? some[place % page.chunk] : "";
  return text ? `data:${page.mime};base64,${text}` : "";
}

const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      complete.then(() => load(entry.target));
    }
  },
  { rootMargin: "300px" },
);

function load(image) {
  const url = pictureUrl(Number(image.dataset.place));
  if (url) image.src = url;
  else image.parentElement.classList.add("missing");
}

// Makes a thumbnail; `mask` is null or a function returning {runs, height, width}.
function picture(place, alt, mask, tag = "span", attributes = {}) {
  const image = element("img", { alt, "data-place": place, decoding: "async" });
  const made = element(tag, { class: "picture", ...attributes }, image);
  if (page.mime) near.observe(image);
  else made.classList.add("missing");
  if (mask) {
    const canvas = element("canvas", { "aria-hidden": "true", width: 1, height: 1 });
    made.append(canvas);
    made.drawMask = () => {
      if (made.drawn) return;
      made.drawn = true;
      complete.then(() => drawMask(canvas, mask()));
    };
    made.addEventListener("pointerenter", made.drawMask);
    made.addEventListener("focus", made.drawMask);
  }
  return made;
}

// Draws the masks of all pictures in `parent` once it is focused or touched.
function drawWithin(parent) {
  const draw = () => {
    for (const one of parent.querySelectorAll(".picture")) one.drawMask?.();
  };
  parent.addEventListener("focusin", draw);
  return draw;
}

// Returns mask `number` of a block of masks; null if the block has none.
function maskOf(masks, unit, rank) {
  if (!masks || rank >= masks.ranks) return null;
  const number = unit * masks.ranks + rank;
  const start = number ? masks.ends[number - 1] : 0;
  const bytes = masks.data.subarray(start, masks.ends[number]);
  const [height, width] = masks.shape;
  const pixels = new Uint8Array(height * width);
  let at = 0;
  let on = 0;
  for (let i = 0; i < bytes.length; ) {
    let length = 0;
    let shift = 0;
    let byte;
    do {
      byte = bytes[i++];
      length += (byte & 127) * 2 ** shift;
      shift += 7;
    } while (byte & 128);
    if (on) pixels.fill(1, at, at + length);
    at += length;
    on = 1 - on;
  }
  if (on) pixels.fill(1, at);
  return { pixels, height, width };
}

// Darkens where the unit does not fire and outlines where it does.
function drawMask(canvas, mask) {
  if (!mask) return;
  const { pixels, height, width } = mask;
  canvas.width = width * PIXEL;
  canvas.height = height * PIXEL;
  const pen = canvas.getContext("2d");
  const fires = (x, y) =>
    x >= 0 && y >= 0 && x < width && y < height ? pixels[y * width + x] : 0;
  pen.fillStyle = "rgba(6, 8, 16, 0.66)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (fires(x, y)) pen.clearRect(x * PIXEL, y * PIXEL, PIXEL, PIXEL);
    }
  }
  pen.fillStyle = OUTLINE; // on the dark side of the border
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (fires(x, y)) continue;
      const left = x * PIXEL;
      const top = y * PIXEL;
      if (fires(x - 1, y)) pen.fillRect(left, top, 1, PIXEL);
      if (fires(x + 1, y)) pen.fillRect(left + PIXEL - 1, top, 1, PIXEL);
      if (fires(x, y - 1)) pen.fillRect(left, top, PIXEL, 1);
      if (fires(x, y + 1)) pen.fillRect(left, top + PIXEL - 1, PIXEL, 1);
    }
  }
}
