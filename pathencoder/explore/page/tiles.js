"use strict";

// The page of `pathencoder explore`. World coordinates are micrometres, or level-0 pixels where a
// slide's scale is unknown; slides lie beside each other in them.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

const slides = data.slides;
const parts = data.parts;
const features = new Int8Array(bytes(data.features).buffer);
const count = slides.reduce((sum, s) => sum + s.count, 0);
const pca = bytes(data.colours);
const groups = bytes(data.clusters);
const scale = bytes(data.scale);
const lengths = new Float32Array(count);
const inMicrometres = slides.every((s) => s.mpp);

const groupColours = Uint8Array.from(data.groups.flat());
const css = (table, i) => `rgb(${table[3 * i]},${table[3 * i + 1]},${table[3 * i + 2]})`;

// ---- slides: tiles, pictures, where they lie ---------------------------------------------------

for (const s of slides) {
  s.corners = new Float32Array(bytes(s.corners).buffer);
  s.outline = new Int32Array(bytes(s.outline).buffer);
  s.outlineStarts = new Int32Array(bytes(s.outlineStarts).buffer);
  s.unit = inMicrometres ? s.mpp : 1; // world units a level-0 pixel
  s.width = s.extent[0] * s.unit;
  s.height = s.extent[1] * s.unit;
  s.gap = s.step % 1 ? 1 : 0; // corners were rounded: neighbours may be one pixel apart
  s.grid = gridOf(s);
  s.reach = [s.width, s.height]; // with the tiles that extend beyond the slide
  s.buckets = new Map();
  for (let i = 0; i < s.count; i++) {
    const key = bucket(s, s.corners[2 * i], s.corners[2 * i + 1]);
    if (!s.buckets.has(key)) s.buckets.set(key, []);
    s.buckets.get(key).push(i);
    for (const axis of [0, 1]) {
      const end = (s.corners[2 * i + axis] + s.side - s.origin[axis]) * s.unit;
      s.reach[axis] = Math.max(s.reach[axis], end);
    }
  }
}
for (let i = 0; i < count; i++) {
  let sum = 0;
  for (let k = i * parts; k < (i + 1) * parts; k++) sum += features[k] * features[k];
  lengths[i] = Math.sqrt(sum) || 1;
}

function bucket(s, x, y) {
  return Math.floor((x - s.origin[0]) / s.side) + 65536 * Math.floor((y - s.origin[1]) / s.side);
}

// The cell of every tile on a regular grid; null where tiles lie anywhere.
function gridOf(s) {
  const low = [Infinity, Infinity];
  for (let i = 0; i < 2 * s.count; i++) low[i % 2] = Math.min(low[i % 2], s.corners[i]);
  const cells = new Int32Array(2 * s.count);
  const size = [1, 1];
  for (let i = 0; i < 2 * s.count; i++) {
    const cell = (s.corners[i] - low[i % 2]) / s.step;
    cells[i] = Math.round(cell);
    if (Math.abs(cell - cells[i]) * s.step > 1.01) return null; // more than rounded corners
    size[i % 2] = Math.max(size[i % 2], cells[i] + 1);
  }
  if (!s.count || size[0] * size[1] > 50 * s.count + 1e6) return null;
  const texture = document.createElement("canvas");
  [texture.width, texture.height] = size;
  return { low, cells, texture };
}

function slideOf(tile) {
  return slides.find((s) => tile >= s.first && tile < s.first + s.count);
}

// Slides beside each other in rows of `columns`, so that all of them are as large as possible.
function placeSlides(aspect) {
  let best = null;
  for (let columns = 1; columns <= slides.length; columns++) {
    const made = inRows(columns);
    const size = Math.min(aspect / made.width, 1 / made.height);
    if (!best || size > best.size) best = { ...made, size };
  }
  slides.forEach((s, n) => Object.assign(s, best.places[n]));
  return [best.width, best.height];
}

function inRows(columns) {
  const largest = Math.max(...slides.map((s) => Math.max(...s.reach)));
  const space = slides.length > 1 ? 0.08 * largest : 0;
  const places = [];
  let width = 0;
  let height = 0;
  for (let n = 0; n < slides.length; n += columns) {
    let x = 0;
    for (const s of slides.slice(n, n + columns)) {
      const room = Math.max(s.reach[0], 0.25 * largest);
      places.push({ x, y: height + space, room });
      x += room + space;
    }
    width = Math.max(width, x - space);
    height += space + Math.max(...slides.slice(n, n + columns).map((s) => s.reach[1]));
  }
  return { places, width, height };
}
