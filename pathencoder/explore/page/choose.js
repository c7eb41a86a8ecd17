// The chosen tile, its similarities and its nearest tiles.

function similarities(tile) {
  const found = new Float32Array(count);
  const one = features.subarray(tile * parts, (tile + 1) * parts);
  for (let i = 0, at = 0; i < count; i++) {
    let sum = 0;
    for (let k = 0; k < parts; k++, at++) sum += features[at] * one[k];
    found[i] = sum / (lengths[i] * lengths[tile]);
  }
  return found;
}

function choose(tile, show) {
  chosen = tile;
  if (tile < 0) {
    cosines = null;
    nearest = [];
    if (colours === "similarity") setColours("pca");
  } else {
    cosines = similarities(tile);
    const sorted = Float32Array.from(cosines).sort();
    ends = [0.02, 0.98].map((q) => sorted[Math.round(q * (count - 1))]);
    setColours("similarity");
    findNearest();
    if (show) bringIntoView(tile);
  }
  document.querySelector('input[value="similarity"]').disabled = tile < 0;
  $("chosen").hidden = tile < 0;
  $("hint").hidden = tile >= 0;
  describe();
  draw();
}

function findNearest() {
  const own = slideOf(chosen);
  const scope = $("scope").value;
  const best = [];
  for (const s of slides) {
    if ((scope === "same" && s !== own) || (scope === "other" && s === own)) continue;
    for (let i = s.first; i < s.first + s.count; i++) {
      if (i === chosen) continue;
      if (best.length === data.nearest && cosines[i] <= cosines[best[best.length - 1]]) continue;
      let place = best.length;
      while (place > 0 && cosines[best[place - 1]] < cosines[i]) place--;
      best.splice(place, 0, i);
      if (best.length > data.nearest) best.pop();
    }
  }
  nearest = best;
  $("nearest").replaceChildren(...nearest.map(nearestItem));
}

function nearestItem(tile) {
  const button = document.createElement("button");
  const picture = document.createElement("canvas");
  picture.width = picture.height = 96;
  cut(picture, tile);
  button.type = "button";
  button.dataset.tile = tile;
  button.title = `${where(tile)}: choose this tile`;
  const lines = [`${cosines[tile].toFixed(3)}`];
  if (slides.length > 1) lines.push(slideOf(tile).name);
  const texts = lines.map((text) => Object.assign(document.createElement("span"), { textContent: text }));
  button.append(picture, ...texts);
  button.addEventListener("click", () => choose(tile, true));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// A tile cut from its slide's picture; its colour where there is no picture.
function cut(target, tile) {
  const s = slideOf(tile);
  const i = tile - s.first;
  const to = target.getContext("2d");
  to.fillStyle = css(pca, tile);
  to.fillRect(0, 0, target.width, target.height);
  if (!s.picture) return;
  const picture = pictureFor(s, (target.width / s.side) * s.extent[0]);
  const x = picture.width / s.extent[0];
  const y = picture.height / s.extent[1];
  to.fillStyle = "#fff";
  to.fillRect(0, 0, target.width, target.height);
  const left = (s.corners[2 * i] - s.origin[0]) * x;
  const top = (s.corners[2 * i + 1] - s.origin[1]) * y;
  to.drawImage(picture, left, top, s.side * x, s.side * y, 0, 0, target.width, target.height);
}

function where(tile) {
  const s = slideOf(tile);
  const i = tile - s.first;
  const at = `${Math.round(s.corners[2 * i])},${Math.round(s.corners[2 * i + 1])}`;
  return slides.length > 1 ? `${s.name}, tile ${at}` : `tile ${at}`;
}

function tileAt(px, py) {
  for (const s of slides) {
    const x = (px / view.zoom + view.x - s.x) / s.unit + s.origin[0];
    const y = (py / view.zoom + view.y - s.y) / s.unit + s.origin[1];
    let best = -1;
    let least = s.side / 2 + 1e-6;
    for (const dx of [0, -s.side]) {
      for (const dy of [0, -s.side]) {
        for (const i of s.buckets.get(bucket(s, x + dx, y + dy)) || []) {
          const away = Math.max(
            Math.abs(s.corners[2 * i] + s.side / 2 - x),
            Math.abs(s.corners[2 * i + 1] + s.side / 2 - y),
          );
          if (away < least) [least, best] = [away, s.first + i];
        }
      }
    }
    if (best >= 0) return best;
  }
  return -1;
}

// The nearest tile in a direction: as straight as possible, on the same slide.
function step(dx, dy) {
  if (chosen < 0) return choose(centreTile(), true);
  const s = slideOf(chosen);
  const own = chosen - s.first;
  let best = -1;
  let least = Infinity;
  for (let i = 0; i < s.count; i++) {
    const x = s.corners[2 * i] - s.corners[2 * own];
    const y = s.corners[2 * i + 1] - s.corners[2 * own + 1];
    const ahead = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (ahead < s.step / 2 || aside > ahead) continue;
    const cost = ahead + 2 * aside;
    if (cost < least) [least, best] = [cost, i];
  }
  if (best >= 0) choose(s.first + best, true);
}

function centreTile() {
  let best = -1;
  let least = Infinity;
  for (const s of slides) {
    for (let i = 0; i < s.count; i++) {
      const [left, top, right, bottom] = box(s, i, true);
      const away = Math.hypot((left + right - canvas.width) / 2, (top + bottom - canvas.height) / 2);
      if (away < least) [least, best] = [away, s.first + i];
    }
  }
  return best;
}

function bringIntoView(tile) {
  const s = slideOf(tile);
  const [left, top, right, bottom] = box(s, tile - s.first, true);
  if (left >= 0 && top >= 0 && right <= canvas.width && bottom <= canvas.height) return;
  view.x += ((left + right) / 2 - canvas.width / 2) / view.zoom;
  view.y += ((top + bottom) / 2 - canvas.height / 2) / view.zoom;
  view.fitted = false;
}
