// The map: pictures, tiles, outlines, marks, scale bar.

const canvas = $("map");
const ctx = canvas.getContext("2d", { alpha: false });
const layer = document.createElement("canvas");
const layerCtx = layer.getContext("2d");
const view = { x: 0, y: 0, zoom: 1, fitted: true, whole: [1, 1] }; // zoom: canvas pixels a unit
let chosen = -1;
let cosines = null;
let ends = [0, 1];
let nearest = [];
let colours = "pca";
let shown = 0; // counts changes of the colours
let waiting = false;

function fit() {
  view.whole = placeSlides(canvas.width / Math.max(1, canvas.height));
  const margin = 0.96;
  view.zoom = margin * Math.min(canvas.width / view.whole[0], canvas.height / view.whole[1]);
  view.x = (view.whole[0] - canvas.width / view.zoom) / 2;
  view.y = (view.whole[1] - canvas.height / view.zoom) / 2;
  view.fitted = true;
  draw();
}

const toX = (s, x) => ((x - s.origin[0]) * s.unit + s.x - view.x) * view.zoom;
const toY = (s, y) => ((y - s.origin[1]) * s.unit + s.y - view.y) * view.zoom;

// Left, top, right, bottom of a tile in canvas pixels; neighbours share their edges.
function box(s, i, whole) {
  const inset = whole ? 0 : (s.side - s.step) / 2;
  const wide = whole ? s.side : s.step + s.gap;
  const x = s.corners[2 * i] + inset;
  const y = s.corners[2 * i + 1] + inset;
  const left = Math.round(toX(s, x));
  const top = Math.round(toY(s, y));
  return [
    left,
    top,
    Math.max(left + 1, Math.round(toX(s, x + wide))),
    Math.max(top + 1, Math.round(toY(s, y + wide))),
  ];
}

// The table of colours that is shown, and the place of a tile's colour in it.
const TABLES = {
  pca: [pca, (tile) => tile],
  clusters: [groupColours, (tile) => groups[tile]],
  similarity: [scale, (tile) => {
    const share = (cosines[tile] - ends[0]) / Math.max(ends[1] - ends[0], 1e-6);
    return Math.max(0, Math.min(255, Math.round(255 * share)));
  }],
};

function draw() {
  waiting = false;
  ctx.fillStyle = "#fff";
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  for (const s of slides) drawPicture(s);
  if (colours !== "none") drawTiles();
  if ($("tissue").checked) for (const s of slides) drawOutline(s);
  if (chosen >= 0) drawMarks();
  if (slides.length > 1) for (const s of slides) drawName(s);
  if (inMicrometres) drawScaleBar();
}

function later() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function drawPicture(s) {
  const left = toX(s, s.origin[0]);
  const top = toY(s, s.origin[1]);
  const width = s.width * view.zoom;
  const height = s.height * view.zoom;
  if (s.picture) {
    const picture = pictureFor(s, width);
    ctx.imageSmoothingEnabled = width < 3 * s.picture.width;
    ctx.drawImage(picture, left, top, width, height);
  }
  ctx.strokeStyle = "#ccc";
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(left) + 0.5, Math.round(top) + 0.5, Math.round(width), Math.round(height));
}

// The smallest copy of a slide's picture that is wide enough.
function pictureFor(s, width) {
  return s.smaller.find((copy) => copy.width >= width) || s.picture;
}

// On pale grey tissue: its light and dark stay visible, and colours are those of the legend.
function drawTiles() {
  const strength = $("strength").value / 100;
  for (const s of slides) {
    fade(s, strength);
    ctx.globalAlpha = strength;
    ctx.globalCompositeOperation = "multiply";
    if (s.grid) drawGrid(s);
    else drawSquares(s);
    ctx.globalCompositeOperation = "source-over";
    ctx.globalAlpha = 1;
  }
}

// Tiles on a grid are one small picture of a pixel a tile, enlarged: the time to draw them does not
// depend on their number.
function drawGrid(s) {
  const { low, texture } = s.grid;
  if (s.grid.shown !== shown) paintGrid(s);
  const inset = (s.side - s.step) / 2;
  const left = toX(s, low[0] + inset);
  const top = toY(s, low[1] + inset);
  const cell = s.step * s.unit * view.zoom;
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(texture, left, top, texture.width * cell, texture.height * cell);
  ctx.imageSmoothingEnabled = true;
}

function paintGrid(s) {
  const { cells, texture } = s.grid;
  const pen = texture.getContext("2d");
  const image = pen.createImageData(texture.width, texture.height);
  const [table, place] = TABLES[colours];
  for (let i = 0; i < s.count; i++) {
    const to = 4 * (cells[2 * i] + texture.width * cells[2 * i + 1]);
    const from = 3 * place(s.first + i);
    image.data[to] = table[from];
    image.data[to + 1] = table[from + 1];
    image.data[to + 2] = table[from + 2];
    image.data[to + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  s.grid.shown = shown;
}

// On a layer of its own, so that tiles that share a pixel are not mixed.
function drawSquares(s) {
  if (layer.width !== canvas.width || layer.height !== canvas.height) {
    layer.width = canvas.width;
    layer.height = canvas.height;
  }
  layerCtx.clearRect(0, 0, layer.width, layer.height);
  const [table, place] = TABLES[colours];
  for (let i = 0; i < s.count; i++) {
    const [left, top, right, bottom] = box(s, i, false);
    if (right < 0 || bottom < 0 || left > layer.width || top > layer.height) continue;
    layerCtx.fillStyle = css(table, place(s.first + i));
    layerCtx.fillRect(left, top, right - left, bottom - top);
  }
  ctx.drawImage(layer, 0, 0);
}

// The picture in pale grey, so that its stain does not change the colours of the map.
function fade(s, strength) {
  if (!s.picture) return;
  const at = [toX(s, s.origin[0]), toY(s, s.origin[1]), s.width * view.zoom, s.height * view.zoom];
  for (const [mode, colour, alpha] of [["saturation", "#888", 1], ["source-over", "#fff", 0.5]]) {
    ctx.globalCompositeOperation = mode;
    ctx.globalAlpha = alpha * strength;
    ctx.fillStyle = colour;
    ctx.fillRect(...at);
  }
}

function drawOutline(s) {
  ctx.beginPath();
  for (let r = 0; r + 1 < s.outlineStarts.length; r++) {
    for (let p = s.outlineStarts[r]; p < s.outlineStarts[r + 1]; p++) {
      const x = toX(s, s.outline[2 * p]);
      const y = toY(s, s.outline[2 * p + 1]);
      if (p === s.outlineStarts[r]) ctx.moveTo(x, y);
      else ctx.lineTo(x, y);
    }
  }
  ctx.strokeStyle = "#006b2d";
  ctx.lineWidth = 1.5 * pixelRatio();
  ctx.stroke();
}

function drawMarks() {
  nearest.forEach((tile) => frame(tile, 1.5, 3.5));
  frame(chosen, 3, 6);
}

function frame(tile, inner, outer) {
  const s = slideOf(tile);
  const [left, top, right, bottom] = box(s, tile - s.first, true);
  for (const [colour, width] of [["#000", outer], ["#fff", inner]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width * pixelRatio();
    ctx.strokeRect(left, top, right - left, bottom - top);
  }
}

function drawName(s) {
  const size = 13 * pixelRatio();
  ctx.font = `${size}px system-ui, sans-serif`;
  ctx.fillStyle = "#222";
  ctx.fillText(shortened(s.name, s.room * view.zoom), toX(s, s.origin[0]), toY(s, s.origin[1]) - 0.4 * size);
}

function shortened(text, room) {
  let kept = text.length;
  while (kept > 4 && ctx.measureText(text.slice(0, kept)).width > room) kept--;
  return kept < text.length ? `${text.slice(0, kept - 1)}\u2026` : text;
}

function drawScaleBar() {
  const ratio = pixelRatio();
  const wanted = (140 * ratio) / view.zoom;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const length = Math.max(...[1, 2, 5].map((n) => n * power).filter((n) => n <= wanted * 1.001));
  const left = 16 * ratio;
  const bottom = canvas.height - 16 * ratio;
  const text = length >= 1000 ? `${length / 1000} mm` : `${length} \u00b5m`;
  ctx.font = `${13 * ratio}px system-ui, sans-serif`;
  const wide = Math.max(length * view.zoom, ctx.measureText(text).width);
  ctx.fillStyle = "rgba(255,255,255,0.85)";
  ctx.fillRect(left - 6 * ratio, bottom - 24 * ratio, wide + 12 * ratio, 32 * ratio);
  ctx.fillStyle = "#000";
  ctx.fillRect(left, bottom, length * view.zoom, 3 * ratio);
  ctx.fillText(text, left, bottom - 7 * ratio);
}

const pixelRatio = () => canvas.width / Math.max(1, canvas.clientWidth);
