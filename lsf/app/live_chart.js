// One Plotly chart that is updated in place, so that zoom, camera and hidden traces survive every update.
// Called by Streamlit again whenever `data` changes: {figure, height, title, alt, clickable}. The loader of plotly.js has
// put the templates {light, dark} into window.lsfTemplates.

const POLL = 80;
const LOOK = 700;
const TITLE_HEIGHT = 40;
const GAP = 2;
// A saved file does not carry the page's font: it is laid out with one that is at hand where it is opened.
const SAVED_FONT = "Arial, Helvetica, sans-serif";

function isDark(element) {
  let node = element;
  while (node) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g) || [];
    const [red, green, blue, alpha = 1] = parts.map(Number);
    if (parts.length >= 3 && alpha > 0) return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    node = node.parentElement;
  }
  return false;
}

function saveButton(host) {
  const icon = { width: 24, height: 24, path: "M5 20h14v-2H5v2zM19 9h-4V3H9v6H5l7 7 7-7z" };
  const save = async () => {
    const { title, template } = host.lsf;
    const dark = host.lsf.dark;
    const top = host.layout.margin.t + TITLE_HEIGHT;
    const layout = {
      ...host.layout,
      template,
      font: { family: SAVED_FONT },
      width: host.clientWidth,
      height: host.clientHeight + TITLE_HEIGHT,
      margin: { ...host.layout.margin, t: top },
      title: { text: title, yref: "container", y: 0.97, yanchor: "top" },
      paper_bgcolor: dark ? "#0E1117" : "#FFFFFF",
    };
    const url = await window.Plotly.toImage({ data: host.data, layout }, { format: "svg" });
    const link = document.createElement("a");
    link.href = url;
    link.download = title.replace(/[^\w]+/g, "-").slice(0, 100).toLowerCase() + ".svg";
    link.click();
  };
  return { name: "Save as SVG", icon, click: save };
}

// Push the picture down where the tool bar would lie over its legend, which takes several lines in a narrow chart.
function clearTools(host) {
  const [tools, legend] = [".modebar", ".legend"].map((name) => host.querySelector(name)?.getBoundingClientRect());
  if (!tools || !legend || legend.right <= tools.left) return;
  const covered = Math.ceil(tools.bottom + GAP - legend.top);
  if (covered <= 0) return;
  host.lsfMore += covered;
  window.Plotly.relayout(host, { "margin.t": host.lsfTop + host.lsfMore });
}

function draw(host) {
  const wanted = host.lsf;
  const dark = isDark(host.parentElement);
  if (!window.Plotly || (wanted.drawn === wanted.figure && wanted.dark === dark)) return;
  const { data, layout, frames } = JSON.parse(wanted.figure);
  wanted.dark = dark;
  wanted.drawn = wanted.figure;
  wanted.template = window.lsfTemplates[dark ? "dark" : "light"];
  // The same object every time: Plotly builds the chart anew when its configuration differs.
  host.lsfConfig ||= {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
    modeBarButtonsToAdd: [saveButton(host)],
  };
  host.lsfTop = layout.margin.t;
  host.lsfMore ||= 0;
  const margin = { ...layout.margin, t: host.lsfTop + host.lsfMore };
  const shown = { ...layout, margin, template: wanted.template };
  window.Plotly.react(host, { data, layout: shown, frames: frames || [], config: host.lsfConfig }).then(() => {
    host.lsfWide ||= host._fullLayout.width;
    clearTools(host);
    host.dataset.drawn = String(Number(host.dataset.drawn || 0) + 1);
    if (host.lsfListens) return;
    host.lsfListens = true;
    host.on("plotly_click", (event) => {
      const value = event.points[0].customdata;
      if (host.lsf.clickable && value !== undefined && value !== null) host.lsf.click(value);
    });
  });
}

// Plotly looks at the window alone: a chart drawn while the page was being laid out anew would keep the old width.
function fit(host) {
  const drawn = host._fullLayout && host._fullLayout.width;
  if (drawn && host.clientWidth && Math.abs(drawn - host.clientWidth) > 1) window.Plotly.Plots.resize(host);
  if (!drawn || drawn === host.lsfWide) return;
  host.lsfWide = drawn;
  host.lsfMore = 0;
  window.Plotly.relayout(host, { "margin.t": host.lsfTop }).then(() => clearTools(host));
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const host = parentElement.querySelector(".lsf-chart");
  host.style.height = `${data.height}px`;
  host.setAttribute("aria-label", data.alt);
  const click = (value) => setTriggerValue("clicked", value);
  host.lsf = { ...(host.lsf || {}), ...data, click };
  draw(host);
  const waiting = setInterval(() => {
    if (!window.Plotly) return;
    draw(host);
    clearInterval(waiting);
  }, POLL);
  const watching = setInterval(() => {
    draw(host);
    fit(host);
  }, LOOK);
  return () => {
    clearInterval(waiting);
    clearInterval(watching);
  };
}
