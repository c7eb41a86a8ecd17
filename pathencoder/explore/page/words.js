// Legend, status, provenance.

function describe() {
  legend();
  const words = $("chosenText");
  if (chosen < 0) {
    $("status").textContent = "";
    return;
  }
  cut($("chosenTile"), chosen);
  words.textContent = `${where(chosen)}; cluster ${groups[chosen] + 1}`;
  const first = nearest.length ? `; most similar: ${where(nearest[0])} (${cosines[nearest[0]].toFixed(3)})` : "";
  $("status").textContent = `Chosen: ${where(chosen)}${first}`;
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function legend() {
  const into = $("legend");
  if (colours === "pca") {
    const share = Math.round(100 * data.explained3);
    into.replaceChildren(
      element("p", `Tiles of one colour have similar features (3 principal components, ${share} % of the variance).`),
    );
  } else if (colours === "clusters") {
    const sizes = new Array(data.groups.length).fill(0);
    for (const g of groups) sizes[g]++;
    const rows = element("p", undefined, "groups");
    sizes.forEach((size, g) => {
      if (!size) return;
      const entry = element("span");
      const swatch = element("i");
      swatch.style.background = css(groupColours, g);
      entry.append(swatch, `${g + 1}: ${size.toLocaleString("en")} (${Math.round((100 * size) / count)} %)`);
      rows.append(entry);
    });
    into.replaceChildren(rows);
  } else if (colours === "similarity") {
    const bar = element("canvas");
    bar.width = 256;
    bar.height = 1;
    const pen = bar.getContext("2d");
    for (let i = 0; i < 256; i++) {
      pen.fillStyle = css(scale, i);
      pen.fillRect(i, 0, 1, 1);
    }
    const row = element("div", undefined, "ends");
    row.append(
      element("span", `different (\u2264 ${ends[0].toFixed(2)})`),
      element("span", ((ends[0] + ends[1]) / 2).toFixed(2)),
      element("span", `similar (\u2265 ${ends[1].toFixed(2)})`),
    );
    into.replaceChildren(bar, row);
  } else {
    into.replaceChildren();
  }
}

function table(into, rows) {
  for (const [name, value] of rows) {
    const row = document.createElement("tr");
    row.append(element("th", name), element("td", value));
    into.append(row);
  }
  return into;
}

const downTo4 = (value) => (Math.floor(1e4 * value) / 1e4).toFixed(4); // never 1 where it is less

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function write() {
  document.title = data.title;
  $("title").textContent = $("printedTitle").textContent = data.title;
  const many = slides.length > 1 ? `${slides.length} slides, ` : "";
  $("sum").textContent = `${many}${count.toLocaleString("en")} tiles`;
  for (const s of slides) {
    for (const note of s.notes) {
      $("warnings").append(element("p", slides.length > 1 ? `${s.name}: ${note}` : note));
    }
  }
  if (!inMicrometres && slides.length > 1) {
    $("warnings").append(element("p", "The scale of a slide is unknown: slides are drawn by their pixels, not by size."));
  }
  let text =
    "Cosine of the features of two tiles, after each was scaled to length one and the mean of all tiles " +
    `was subtracted. This page holds ${parts} principal components of ${data.width} numbers a tile as ` +
    `8-bit integers: ${percent(data.explained)} of the variance.`;
  if (data.correlation !== null) {
    text += ` Measured on this page's tiles: correlation ${downTo4(data.correlation)} with the cosine of all numbers;`;
    text += ` ${percent(data.agreement)} of the ${data.nearest} most similar tiles are the same.`;
  }
  if (slides.length > 1) text += " Components, colours and clusters are those of all slides together.";
  $("method").textContent = text;
  table($("about"), data.about);
  for (const s of slides) {
    const part = element("details");
    part.open = slides.length === 1;
    part.append(element("summary", `${s.name}: ${s.count.toLocaleString("en")} tiles`));
    part.append(table(element("table"), s.about));
    $("slides").append(part);
  }
  $("scope").hidden = slides.length < 2;
  if (!count) {
    $("hint").textContent = "There are no tiles.";
    for (const input of document.querySelectorAll('input[name="view"]')) input.disabled = true;
  }
}
