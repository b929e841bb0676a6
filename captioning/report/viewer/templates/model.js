"use strict";
// What is shown: the data, the view that the address holds, filters, order and histogram. Nothing here draws.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = new Map(DATA.rows.map((row, index) => [row.key, { ...row, index }]));
DATA.images.forEach((image, index) => { image.index = index; });

const DEFAULTS = {
  first: DATA.pair[0], second: DATA.pair[1], sort: "difference", words: "", scope: "all", source: "", scene: "",
  "unshared-first": "", "unshared-second": "", "every-row": "", bin: "", keys: "on", image: "",
};
const CHOICES = {
  first: [...ROWS.keys()], second: [...ROWS.keys()], sort: ["difference", "gain", "loss", "worst", "best", "split"],
  scope: ["all", "first", "second", "references"], keys: ["on", "off"],
};
const MAX_BARS = 10; // on each side of zero
const UNSPACED = /^[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}\p{sc=Tibetan}]/u;

/** Return the view of an address; what it does not know keeps its default. */
function readView(fragment) {
  const view = { ...DEFAULTS };
  for (const [name, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (Object.hasOwn(DEFAULTS, name) && (CHOICES[name] ?? [value]).includes(value)) view[name] = value;
  }
  return view;
}

/** Return the address of a view: only what differs from the defaults. */
function writeView(view) {
  const changed = Object.keys(DEFAULTS).filter((name) => view[name] !== DEFAULTS[name]);
  return `#${new URLSearchParams(changed.map((name) => [name, view[name]]))}`;
}

const captionOf = (image, row) => image.captions[ROWS.get(row).index];
const textOf = (caption) => caption.pieces.map(([text]) => text).join("");
const difference = (image, view) => captionOf(image, view.second).cider - captionOf(image, view.first).cider;

/** Return the search as terms: {pattern, excluded}; a term begins at the beginning of a word. */
function readTerms(words) {
  return [...words.normalize().matchAll(/(-?)(?:"([^"]+)"?|([^\s"-][^\s"]*))/g)].map(([, minus, quoted, plain]) => {
    const text = (quoted ?? plain).trim().replace(/[.*+?^${}()|[\]\\/]/g, "\\$&").replace(/\s+/g, "\\s+");
    const start = UNSPACED.test(text) ? "" : "(?<![\\p{L}\\p{N}])";
    return { pattern: new RegExp(start + text, "giu"), excluded: minus === "-" };
  });
}

function searchedText(image, view) {
  const rows = { first: [view.first], second: [view.second], all: [view.first, view.second], references: [] };
  const texts = rows[view.scope].map((row) => textOf(captionOf(image, row)));
  if (view.scope === "all") texts.push(image.id);
  if (view.scope === "all" || view.scope === "references") texts.push(...image.references);
  return texts.join("\n").normalize();
}

/** Return the images that all filters but the histogram's let through. */
function filterImages(view) {
  const terms = readTerms(view.words);
  return DATA.images.filter((image) => {
    if (view.source && image.source !== view.source) return false;
    if (view.scene && image.scene !== view.scene) return false;
    for (const side of ["first", "second"]) {
      if (view[`unshared-${side}`] && !captionOf(image, view[side]).unshared.length) return false;
    }
    const text = terms.length ? searchedText(image, view) : "";
    return terms.every((term) => (text.search(term.pattern) >= 0) !== term.excluded);
  });
}

const ORDERS = {
  difference: (image, view) => -Math.abs(difference(image, view)),
  gain: (image, view) => -difference(image, view),
  loss: (image, view) => difference(image, view),
  worst: (image, view) => captionOf(image, view.second).cider,
  best: (image, view) => -captionOf(image, view.second).cider,
  split: (image) => image.index,
};

function sortImages(images, view) {
  const order = ORDERS[view.sort];
  return [...images].sort((a, b) => order(a, view) - order(b, view) || a.index - b.index);
}

/** Return the range [low, high) of a bar that an address names, or null. */
function readBin(text) {
  const match = /^(-?[\d.]+)\.\.(-?[\d.]+)$/.exec(text);
  return match ? [Number(match[1]), Number(match[2])] : null;
}

const inBin = (value, bin) => !bin || (bin[0] <= value && value < bin[1]);

/** Return the bars of the histogram, equally many on both sides of the one around zero: {low, high, count}. */
function histogram(images, view) {
  const largest = Math.max(1, ...DATA.images.map((image) => Math.abs(difference(image, view))));
  const widths = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  const width = widths.find((points) => largest / points <= MAX_BARS) ?? 1000;
  const side = Math.max(1, Math.round(largest / width));
  const bars = Array.from({ length: 2 * side + 1 }, (_, index) => {
    const low = (index - side - 0.5) * width;
    return { low, high: low + width, count: 0 };
  });
  for (const image of images) {
    const bar = Math.floor(difference(image, view) / width + 0.5) + side;
    bars[Math.min(Math.max(bar, 0), 2 * side)].count += 1;
  }
  return bars;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Say how many images are shown and how the two rows compare on them. */
function summarise(images, view) {
  const total = DATA.images.length;
  if (!images.length) return `No image of ${total} fits these filters.`;
  const [first, second] = [view.first, view.second].map((row) => mean(images.map((image) => captionOf(image, row).cider)));
  const better = images.filter((image) => difference(image, view) > 0).length;
  const worse = images.filter((image) => difference(image, view) < 0).length;
  const shown = images.length === total ? (total === 1 ? "The image." : `All ${total} images.`) : `${images.length} of ${total} images.`;
  return `${shown} Mean CIDEr ${first.toFixed(1)} → ${second.toFixed(1)}: the second row is better on ${better}, ` +
    `equal on ${images.length - better - worse}, worse on ${worse}.`;
}
