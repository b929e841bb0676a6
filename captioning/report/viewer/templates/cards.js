// Draw an image with its captions. All texts are set as text, never as markup.

/** Make an element; `attributes` are set as they are, `children` are elements or texts. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const sign = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±");
const signed = (value) => sign(value) + Math.abs(value).toFixed(1);
const short = (value) => sign(value) + Math.abs(value);
const MAX_CIDER = Math.max(1, ...DATA.images.flatMap((image) => image.captions.map((caption) => caption.cider)));

/** Draw a caption with its marks; a reader that cannot see them hears which words no reference has. */
function drawCaption(caption) {
  const marked = caption.pieces.map(([text, level]) => (level === 1 ? text : element("mark", { class: `n${level}` }, text)));
  if (!marked.length) marked.push(element("i", {}, "(empty)"));
  const unshared = caption.unshared.length ? `In no reference: ${caption.unshared.join(", ")}.` : null;
  return [element("p", { dir: "auto", class: "text" }, ...marked), unshared && element("p", { class: "unseen" }, unshared)];
}

function drawMeter(cider) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${(100 * cider) / MAX_CIDER}%`;
  return element("span", { class: "meter", "aria-hidden": "true" }, bar);
}

function drawSide(image, view, side) {
  const caption = captionOf(image, view[side]);
  const name = element("span", { class: "name" }, ROWS.get(view[side]).name);
  const score = element("span", { class: "cider" }, element("span", { class: "unseen" }, "CIDEr "), caption.cider.toFixed(1));
  const heading = element("h3", {}, name, " ", score);
  return element("section", { class: `side ${side}` }, heading, drawMeter(caption.cider), ...drawCaption(caption));
}

/** List the references; equal ones once, with their number. */
function drawReferences(image) {
  const counts = new Map();
  for (const text of image.references) counts.set(text, (counts.get(text) ?? 0) + 1);
  const items = [...counts].map(([text, count]) => {
    const times = count > 1 ? element("span", { class: "times" }, ` × ${count}`) : null;
    return element("li", {}, element("span", { dir: "auto" }, text), ...(times ? [times] : []));
  });
  const number = image.references.length;
  const equal = counts.size === 1 ? ", all the same" : counts.size < number ? `, ${counts.size} different` : "";
  const title = number === 1 ? "1 reference" : `${number} references${equal}`;
  return element("section", { class: "references" }, element("h3", {}, title), element("ul", {}, ...items));
}

/** Draw the captions of all rows, in the order of Table II. */
function drawEveryRow(image, view) {
  const lines = DATA.rows.map((row) => {
    const caption = captionOf(image, row.key);
    const side = row.key === view.first ? "first" : row.key === view.second ? "second" : "";
    const term = element("dt", {}, element("span", { class: "name" }, row.name), " ", element("span", { class: "cider" }, caption.cider.toFixed(1)));
    return element("div", { class: side }, term, element("dd", {}, ...drawCaption(caption)));
  });
  return element("dl", { class: "every-row" }, ...lines);
}

function drawDetails(image, view) {
  const details = element("details", {}, element("summary", {}, `All ${DATA.rows.length} rows`));
  const fill = () => { if (details.open && !details.querySelector("dl")) details.append(drawEveryRow(image, view)); };
  details.addEventListener("toggle", fill);
  details.open = view["every-row"] === "yes";
  fill();
  return details;
}

/** Draw the picture, now or, while the browser still reads the file, at its end. */
function drawPicture(image) {
  const picture = element("img", { alt: `Test image ${image.id}`, width: 224, height: 224 });
  const load = () => { picture.src = `data:image/webp;base64,${document.getElementById(`webp-${image.index}`).textContent}`; };
  picture.addEventListener("load", () => picture.classList.toggle("pixels", picture.naturalWidth < 100));
  if (document.getElementById(`webp-${image.index}`)) load();
  else document.addEventListener("DOMContentLoaded", load);
  return picture;
}

function drawCard(image, view) {
  const title = `title-${image.index}`;
  const points = difference(image, view);
  const better = points > 0 ? "second" : points < 0 ? "first" : "";
  const facts = [image.source, image.scene].filter(Boolean).map((fact) => element("span", { class: "fact" }, element("bdi", {}, fact)));
  const link = element("a", { class: "link", href: writeView({ ...view, image: image.id }), "aria-label": `Link to image ${image.id}` }, "link");
  const change = element("span", { class: `difference ${better}` }, element("span", { class: "unseen" }, "Difference "), signed(points));
  const header = element("header", {}, element("h2", { id: title }, element("bdi", {}, image.id)), ...facts, link, change);
  const pair = element("div", { class: "pair" }, drawSide(image, view, "first"), drawSide(image, view, "second"));
  const body = [header, pair, drawReferences(image), drawDetails(image, view)];
  const card = element("article", { tabindex: -1, "aria-labelledby": title }, drawPicture(image), ...body);
  return element("li", { "data-index": image.index }, card);
}

/** Mark the words that were searched for, where the browser can do so without changing the text. */
function highlightTerms(list, terms) {
  if (!globalThis.Highlight) return;
  const hits = new Highlight();
  const walker = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
  const patterns = terms.filter((term) => !term.excluded).map((term) => term.pattern);
  while (patterns.length && walker.nextNode()) {
    if (!walker.currentNode.parentElement.closest(".text, .references li")) continue;
    for (const match of patterns.flatMap((pattern) => [...walker.currentNode.data.matchAll(pattern)])) {
      const range = new Range();
      range.setStart(walker.currentNode, match.index);
      range.setEnd(walker.currentNode, match.index + match[0].length);
      hits.add(range);
    }
  }
  CSS.highlights.set("hits", hits);
}
