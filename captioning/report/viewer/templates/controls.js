// Connect the controls, the keys and the address with what is shown.

const CHUNK = 20; // images drawn at a time
const find = (id) => document.getElementById(id);
const SELECTS = ["first", "second", "sort", "scope", "source", "scene"];
const CHECKS = { "unshared-first": ["yes", ""], "unshared-second": ["yes", ""], "every-row": ["yes", ""], keys: ["on", "off"] };

let view = readView(location.hash);
let images = []; // that are shown, in their order
let drawn = 0; // how many of them have a card

function fillSelect(id, options) {
  find(id).replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}

/** Offer the values that images have, with their numbers; hide a choice of one. */
function fillFacts(name) {
  const counts = new Map();
  for (const image of DATA.images) counts.set(image[name], (counts.get(image[name]) ?? 0) + 1);
  const options = [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([value, count]) => [value, `${value} (${count})`]);
  fillSelect(name, [["", "any"], ...options.filter(([value]) => value)]);
  find(name).parentElement.hidden = counts.size < 2;
}

/** Show the view in the controls. */
function showControls() {
  for (const name of SELECTS) find(name).value = view[name];
  for (const [name, [checked]] of Object.entries(CHECKS)) find(name).checked = view[name] === checked;
  if (document.activeElement !== find("words")) find("words").value = view.words;
}

function drawHistogram(candidates) {
  const bars = histogram(candidates, view);
  const chosen = readBin(view.bin);
  const highest = Math.max(1, ...bars.map((bar) => bar.count));
  const buttons = bars.map((bar) => {
    const isChosen = chosen !== null && bar.low === chosen[0] && bar.high === chosen[1];
    const text = `${bar.count} ${bar.count === 1 ? "image" : "images"} from ${short(bar.low)} to ${short(bar.high)}`;
    const side = bar.low > 0 ? "second" : bar.high < 0 ? "first" : "equal";
    const attributes = { type: "button", class: side, title: text, "aria-label": text, "aria-pressed": String(isChosen), value: `${bar.low}..${bar.high}` };
    const button = element("button", attributes, element("span"));
    button.firstChild.style.height = `${bar.count ? Math.max(4, (100 * bar.count) / highest) : 0}%`;
    button.tabIndex = -1;
    return button;
  });
  (buttons.find((button) => button.ariaPressed === "true") ?? buttons[(buttons.length - 1) / 2]).tabIndex = 0;
  const focused = find("histogram").contains(document.activeElement) ? document.activeElement.value : null;
  find("histogram").replaceChildren(...buttons);
  buttons.find((button) => button.value === focused)?.focus();
  find("axis-low").textContent = short(bars[0].low);
  find("axis-high").textContent = short(bars.at(-1).high);
}

/** Draw further cards, at least up to position `end` of the list. */
function drawMore(end) {
  const next = images.slice(drawn, Math.max(end, drawn + CHUNK));
  find("list").append(...next.map((image) => drawCard(image, view)));
  drawn += next.length;
  find("more").hidden = drawn >= images.length;
  highlightTerms(find("list"), readTerms(view.words));
}

function markCurrent() {
  for (const item of find("list").children) {
    const isCurrent = DATA.images[item.dataset.index].id === view.image;
    item.firstChild.toggleAttribute("aria-current", isCurrent);
    if (isCurrent) item.firstChild.setAttribute("aria-current", "true");
  }
}

/** Show all of the view. */
function show() {
  showControls();
  const candidates = filterImages(view);
  drawHistogram(candidates);
  images = sortImages(candidates.filter((image) => inBin(difference(image, view), readBin(view.bin))), view);
  const missing = view.image && !images.some((image) => image.id === view.image);
  find("summary").textContent = summarise(images, view) + (missing ? ` Image ${view.image} is not among them.` : "");
  find("list").replaceChildren();
  drawn = 0;
  drawMore(CHUNK);
  markCurrent();
}

/** Change the view and its address. */
function change(changes) {
  view = { ...view, ...changes };
  history.replaceState(null, "", writeView(view));
  show();
}

/** Go to the image at a position of the list. */
function goTo(position) {
  if (position < 0 || position >= images.length) return;
  view = { ...view, image: images[position].id };
  history.replaceState(null, "", writeView(view));
  reveal();
}

/** Bring the view's image to the top of the screen, with the focus. */
function reveal() {
  const position = images.findIndex((image) => image.id === view.image);
  if (position < 0) return;
  if (position >= drawn) drawMore(position + 1);
  markCurrent();
  const card = find("list").children[position].firstChild;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
}

const showHelp = () => { find("help").showModal(); find("close").focus(); };
const swapRows = () => change({ first: view.second, second: view.first, bin: "" });

function pressKey(event) {
  const isTyping = event.target.closest("input:not([type=checkbox]), select, textarea, dialog, #histogram");
  if (event.key === "Escape" && event.target === find("words")) return find("captions").focus();
  if (isTyping || view.keys === "off" || event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const position = images.findIndex((image) => image.id === view.image);
  const actions = {
    ArrowRight: () => goTo(position + 1),
    ArrowLeft: () => goTo(position - 1),
    "/": () => { find("panel").open = true; find("words").focus(); find("words").select(); },
    "?": showHelp,
    x: () => { swapRows(); reveal(); },
    a: () => { change({ "every-row": view["every-row"] ? "" : "yes" }); reveal(); },
  };
  if (!Object.hasOwn(actions, event.key)) return undefined;
  event.preventDefault();
  return actions[event.key]();
}

/** Move the focus between the bars of the histogram. */
function moveInHistogram(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const target = step === -1 ? event.target.previousElementSibling : step === 1 ? event.target.nextElementSibling : null;
  if (!target) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}

function connect() {
  for (const name of SELECTS) find(name).addEventListener("change", (event) => change({ [name]: event.target.value, bin: "" }));
  for (const [name, [checked, unchecked]] of Object.entries(CHECKS)) {
    find(name).addEventListener("change", (event) => change({ [name]: event.target.checked ? checked : unchecked }));
  }
  let waiting = 0;
  find("words").addEventListener("input", (event) => {
    clearTimeout(waiting);
    const words = event.target.value;  // another control may be used, and the view shown again, before the time is up
    waiting = setTimeout(() => change({ words }), 120);
  });
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("controls").addEventListener("reset", (event) => {
    event.preventDefault();
    const { words, scope, source, scene, bin } = DEFAULTS;
    clearTimeout(waiting);
    find("words").value = "";
    change({ words, scope, source, scene, bin, "unshared-first": "", "unshared-second": "", image: "" });
  });
  find("swap").addEventListener("click", swapRows);
  find("histogram").addEventListener("click", (event) => {
    const bar = event.target.closest("button");
    if (bar) change({ bin: bar.value === view.bin ? "" : bar.value });
  });
  find("histogram").addEventListener("keydown", moveInHistogram);
  find("help-button").addEventListener("click", showHelp);
  find("more").addEventListener("click", () => { const first = drawn; drawMore(first); find("list").children[first].firstChild.focus(); });
  find("skip").addEventListener("click", (event) => { event.preventDefault(); find("captions").focus(); });
  addEventListener("keydown", pressKey);
  addEventListener("hashchange", () => { view = readView(location.hash); show(); reveal(); });
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) drawMore(drawn); }, { rootMargin: "600px" }).observe(find("more"));
}

const wide = matchMedia("(min-width: 60rem)");
const openPanel = () => { find("panel").open = wide.matches; };
wide.addEventListener("change", openPanel);
openPanel();
const rowOptions = DATA.rows.map((row) => [row.key, row.name]);
fillSelect("first", rowOptions);
fillSelect("second", rowOptions);
fillFacts("source");
fillFacts("scene");
connect();
show();
reveal();
