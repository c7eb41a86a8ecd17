// Mouse, keys, size, and the start.

function setColours(name) {
  colours = name;
  shown++;
  document.querySelector(`input[value="${name}"]`).checked = true;
}

function zoomAt(factor, px, py) {
  const zoom = Math.max(view.zoom * factor, 0.3 * Math.min(canvas.width / view.whole[0], canvas.height / view.whole[1]));
  const most = 40 / Math.min(...slides.map((s) => s.unit)); // canvas pixels a level-0 pixel
  const next = Math.min(zoom, most);
  view.x += px / view.zoom - px / next;
  view.y += py / view.zoom - py / next;
  view.zoom = next;
  view.fitted = false;
  later();
}

function zoomByKey(factor) {
  if (chosen < 0) return zoomAt(factor, canvas.width / 2, canvas.height / 2);
  const s = slideOf(chosen);
  const [left, top, right, bottom] = box(s, chosen - s.first, true);
  zoomAt(factor, (left + right) / 2, (top + bottom) / 2);
}

const pointOf = (event) => {
  const at = canvas.getBoundingClientRect();
  return [(event.clientX - at.left) * pixelRatio(), (event.clientY - at.top) * pixelRatio()];
};

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = { at: pointOf(event), moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = pointOf(event);
  if (!drag) {
    const tile = tileAt(x, y);
    const cosine = tile >= 0 && cosines ? `, similarity ${cosines[tile].toFixed(3)}` : "";
    canvas.title = tile >= 0 ? `${where(tile)}, cluster ${groups[tile] + 1}${cosine}` : "";
    return;
  }
  const [dx, dy] = [x - drag.at[0], y - drag.at[1]];
  if (!drag.moved && Math.hypot(dx, dy) < 4 * pixelRatio()) return;
  drag.moved = true;
  drag.at = [x, y];
  view.x -= dx / view.zoom;
  view.y -= dy / view.zoom;
  view.fitted = false;
  later();
});
canvas.addEventListener("pointerup", (event) => {
  const clicked = drag && !drag.moved;
  drag = null;
  if (!clicked) return;
  const tile = tileAt(...pointOf(event));
  if (tile >= 0) choose(tile, false);
});
canvas.addEventListener("pointercancel", () => (drag = null));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 500)), ...pointOf(event));
}, { passive: false });

const KEYS = {
  ArrowLeft: () => step(-1, 0),
  ArrowRight: () => step(1, 0),
  ArrowUp: () => step(0, -1),
  ArrowDown: () => step(0, 1),
  "+": () => zoomByKey(1.4),
  "=": () => zoomByKey(1.4),
  "-": () => zoomByKey(1 / 1.4),
  0: fit,
  Escape: () => choose(-1, false),
};
addEventListener("keydown", (event) => {
  const own = event.target.closest("input, select") && event.key.startsWith("Arrow");
  if (own || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key] || !count) return;
  event.preventDefault();
  KEYS[event.key]();
});

for (const input of document.querySelectorAll('input[name="view"]')) {
  input.addEventListener("change", () => {
    setColours(input.value);
    legend();
    draw();
  });
}
$("strength").addEventListener("input", later);
$("tissue").addEventListener("change", later);
$("fit").addEventListener("click", fit);
$("scope").addEventListener("change", () => {
  findNearest();
  describe();
  draw();
});
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

function resize() {
  const ratio = window.devicePixelRatio || 1;
  const size = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width === size[0] && canvas.height === size[1]) return;
  [canvas.width, canvas.height] = size;
  if (view.fitted) fit();
  else draw();
}

// Copies at half, a quarter and so on: a large picture drawn small is slow and flickers.
function shrink(s) {
  s.smaller = [];
  let from = s.picture;
  while (from.width > 600) {
    const half = document.createElement("canvas");
    half.width = Math.max(1, from.width >> 1);
    half.height = Math.max(1, from.height >> 1);
    half.getContext("2d").drawImage(from, 0, 0, half.width, half.height);
    s.smaller.unshift(half);
    from = half;
  }
}

async function loadPicture(s) {
  if (!s.image) return;
  s.picture = await createImageBitmap(new Blob([bytes(s.image)], { type: "image/jpeg" }));
  s.image = null;
  shrink(s);
}

// A mark in the browser's list of timings when what was drawn is on the screen.
function afterFrame(name) {
  requestAnimationFrame(() => setTimeout(() => {
    performance.mark(name);
    document.body.dataset[name] = "yes";
  }));
}

async function start() {
  write();
  legend();
  resize();
  afterFrame("painted");
  addEventListener("resize", () => {
    if (!matchMedia("print").matches) resize();
  });
  await Promise.all(slides.map(loadPicture));
  draw();
  if (chosen >= 0) choose(chosen, false);
  afterFrame("complete");
}

// For scripts and tests: the state, and where a tile is on the canvas in CSS pixels.
window.explorer = {
  state: () => ({ chosen, nearest, colours, ends, zoom: view.zoom, x: view.x, y: view.y }),
  cosines: () => cosines && Array.from(cosines),
  choose: (tile) => choose(tile, true),
  centre: (tile) => {
    const s = slideOf(tile);
    const [left, top, right, bottom] = box(s, tile - s.first, true);
    return [(left + right) / 2 / pixelRatio(), (top + bottom) / 2 / pixelRatio()];
  },
};

start();
