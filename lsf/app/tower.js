// The tower: a model as its stack of blocks, the embedding below, the head above. Updated in place, so that colours grow.
// Called by Streamlit again whenever `data` changes: {title, alt, score, ends, blocks, reach, notes, editable, picks,
// picked, how}; every number in it was computed in Python. Reports {first, last} where a person clicked, dragged or
// pressed a key; where `picks`, a single block, which is `picked` afterwards and not tuned.

const SVG = "http://www.w3.org/2000/svg";
const HEAD = 30;
const ROOM = 380; // pixels for all blocks together
const LEAST = 4.75;
const MOST = 27;
const READABLE = 11; // pixels of a row that text fits into
const LEFT = { number: 16, block: 21, value: 101, reach: 146, work: 154 };
const WIDE = { block: 75, work: 58, all: 213 };

function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.append(node);
  return node;
}

// Everything that depends on the number of blocks alone.
function build(host, count) {
  const step = Math.max(LEAST, Math.min(MOST, ROOM / count));
  const bottom = HEAD + step * count;
  const svg = host.querySelector("svg");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDE.all} ${bottom + 34}`);
  const defs = make("defs", {}, svg);
  const hatch = make("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse" }, defs);
  hatch.setAttribute("patternTransform", "rotate(45)");
  make("rect", { width: 3, height: 7, class: "stripe" }, hatch);
  const end = (y, words, name) => {
    make("rect", { x: LEFT.block, y, width: WIDE.block, height: 20, rx: 4, class: "end" }, svg);
    const middle = LEFT.block + WIDE.block / 2;
    make("text", { x: middle, y: y + 14, class: "text middle", "aria-hidden": "true" }, svg).textContent = name;
  };
  end(4, "head", "head");
  end(bottom + 4, "embedding", "embedding");
  const heading = (x, text) => {
    make("text", { x, y: 18, class: "text muted", "aria-hidden": "true" }, svg).textContent = text;
    return svg.lastChild;
  };
  const rows = [];
  const every = Math.ceil(READABLE / step);
  const gap = Math.min(3, step * 0.16);
  for (let block = count - 1; block >= 0; block -= 1) {
    const y = HEAD + step * (count - 1 - block);
    const row = make("g", { id: `block-${block}`, class: "row" }, svg);
    const inner = { y: y + gap / 2, height: step - gap };
    const rx = Math.min(4, step / 4);
    make("rect", { x: 0, y, width: WIDE.all, height: step, class: "ground" }, row);
    make("rect", { x: LEFT.block, width: WIDE.block, rx, class: "body", ...inner }, row);
    make("rect", { x: LEFT.block, width: WIDE.block, rx, class: "mark", ...inner }, row);
    const baseline = y + step / 2 + 4;
    if (block % every === 0 && (block + every <= count || every === 1)) {
      make("text", { x: LEFT.number, y: baseline, class: "text number" }, row).textContent = block;
    }
    if (every === 1) make("text", { x: LEFT.value, y: baseline, class: "text value" }, row);
    for (const part of ["forward", "backward", "weights"]) {
      make("rect", { y: y + step * 0.2, height: step * 0.6, class: part }, row);
    }
    make("title", {}, row);
    rows[block] = row;
  }
  const reach = make("path", { class: "reach", "aria-hidden": "true" }, svg);
  host.tower = { ...(host.tower || {}), count, step, rows, reach, work: heading(LEFT.work, "work"), active: count - 1 };
}

function paint(host, data) {
  const { rows, step, count, reach, work } = host.tower;
  const svg = host.querySelector("svg");
  svg.classList.toggle("editable", data.editable);
  svg.setAttribute("role", data.editable ? "listbox" : "img");
  svg.setAttribute("aria-label", data.editable && !data.picks ? `Blocks to tune. ${data.alt}` : data.alt);
  host.tower.picks = data.picks;
  if (data.editable) {
    svg.setAttribute("aria-multiselectable", String(!data.picks));
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-activedescendant", `block-${host.tower.active}`);
  } else for (const name of ["aria-multiselectable", "tabindex", "aria-activedescendant"]) svg.removeAttribute(name);
  for (const one of data.blocks) {
    const row = rows[one.block];
    row.setAttribute("role", data.editable ? "option" : "presentation");
    row.setAttribute("aria-label", one.words);
    row.setAttribute("aria-selected", String(data.picks ? one.block === data.picked : one.tuned));
    row.classList.toggle("chosen", data.picks && one.block === data.picked);
    row.classList.toggle("tuned", one.tuned);
    row.classList.toggle("unknown", one.shade === null);
    row.querySelector("title").textContent = one.words;
    row.querySelector(".body").style.setProperty("--share", `${Math.round(4 + 88 * (one.shade ?? 0))}%`);
    const value = row.querySelector(".value");
    if (value) value.textContent = one.value;
    let x = LEFT.work;
    ["forward", "backward", "weights"].forEach((part, index) => {
      const width = one.work ? WIDE.work * one.work[index] : 0;
      const bar = row.querySelector(`.${part}`);
      bar.setAttribute("x", x);
      bar.setAttribute("width", width);
      x += width;
    });
  }
  work.textContent = data.blocks[0].work ? "work" : "";
  const low = HEAD + step * (count - 1 - data.reach) + step / 2;
  const arrow = `M${LEFT.reach} 14V${low}m-4 -6l4 6l4 -6`;
  reach.setAttribute("d", data.reach === null ? "" : arrow);
  host.querySelector(".title").textContent = data.title;
  host.querySelector(".score").textContent = data.score;
  for (const node of host.querySelectorAll(".scale")) node.hidden = !data.score;
  host.querySelector(".parts").hidden = !data.blocks[0].work;
  host.querySelector(".low").textContent = data.ends[0];
  host.querySelector(".high").textContent = data.ends[1];
  host.querySelector(".sides").hidden = data.picks;
  host.querySelector(".how").hidden = !data.editable;
  host.querySelector(".how").textContent = data.how;
  const notes = host.querySelector(".notes");
  notes.replaceChildren(...data.notes.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
}

function span(host, first, last) {
  host.tower.rows.forEach((row, block) => {
    const inside = first !== null && block >= Math.min(first, last) && block <= Math.max(first, last);
    row.classList.toggle("picked", inside);
  });
}

function blockAt(host, event) {
  const svg = host.querySelector("svg");
  const box = svg.getBoundingClientRect();
  const y = ((event.clientY - box.top) / box.height) * svg.viewBox.baseVal.height;
  const { step, count } = host.tower;
  return Math.max(0, Math.min(count - 1, count - 1 - Math.floor((y - HEAD) / step)));
}

function walk(host, block) {
  host.tower.active = Math.max(0, Math.min(host.tower.count - 1, block));
  host.querySelector("svg").setAttribute("aria-activedescendant", `block-${host.tower.active}`);
}

// Shown at once; what Python makes of it comes with the next data.
function report(host, first, last) {
  if (host.tower.picks) {
    span(host, null);
    host.tower.send({ first: last, last });
    return;
  }
  const side = !host.tower.rows[first].classList.contains("tuned");
  for (let block = Math.min(first, last); block <= Math.max(first, last); block += 1) {
    host.tower.rows[block].classList.toggle("tuned", side);
  }
  span(host, null);
  host.tower.send({ first, last });
}

function listen(host) {
  const svg = host.querySelector("svg");
  let start = null;
  let anchor = null; // of a run picked with shift
  const editable = () => svg.classList.contains("editable");
  svg.addEventListener("pointerdown", (event) => {
    if (!editable() || event.button || !event.target.closest(".row")) return;
    start = blockAt(host, event);
    anchor = null;
    walk(host, start);
    span(host, start, start);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (start !== null) span(host, host.tower.picks ? blockAt(host, event) : start, blockAt(host, event));
  });
  svg.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const first = start;
    start = null;
    report(host, first, blockAt(host, event));
  });
  svg.addEventListener("pointercancel", () => {
    start = null;
    span(host, null);
  });
  svg.addEventListener("blur", () => span(host, null));
  svg.addEventListener("focus", () => span(host, host.tower.active, host.tower.active));
  svg.addEventListener("keydown", (event) => {
    if (!editable()) return;
    const { active, count } = host.tower;
    const to = { ArrowUp: active + 1, ArrowDown: active - 1, Home: 0, End: count - 1 }[event.key];
    if (to !== undefined) {
      anchor = event.shiftKey && !host.tower.picks ? anchor ?? active : null;
      walk(host, to);
      span(host, anchor ?? host.tower.active, host.tower.active);
    } else if (event.key === " " || event.key === "Enter") {
      report(host, anchor ?? active, active);
      anchor = null;
      span(host, active, active);
    } else if (event.key === "Escape") {
      start = anchor = null;
      span(host, active, active);
    } else return;
    event.preventDefault();
  });
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".tower");
  if (!host.tower) listen(host);
  if (!host.tower || host.tower.count !== data.blocks.length) build(host, data.blocks.length);
  host.tower.send = (value) => setTriggerValue("brushed", value);
  const drawn = JSON.stringify(data);
  if (host.tower.drawn !== drawn) paint(host, data);
  host.tower.drawn = drawn;
}
