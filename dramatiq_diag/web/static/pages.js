// Charts, relative times, sections that refresh themselves, and the choice of a view. Without it, pages have no charts.

const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(width) {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(name).trim();
  return {
    background: "transparent",
    font: style.fontFamily,
    view: {stroke: color("--line")},
    axis: {
      labelColor: color("--quiet"), titleColor: color("--quiet"), gridColor: color("--line"),
      domainColor: color("--line"), tickColor: color("--line"), labelFontSize: 12, titleFontSize: 12,
      titleFontWeight: "normal", tickCount: Math.max(Math.round(width / 110), 3), labelFont: style.fontFamily, titleFont: style.fontFamily,
    },
    legend: {labelColor: color("--text"), titleColor: color("--quiet"), labelFontSize: 12},
    text: {color: color("--text"), fill: color("--text")},
    rule: {color: color("--quiet")},
    title: {color: color("--text")},
  };
}

async function fetchSpec(element) {
  for (;;) {
    const response = await fetch(element.dataset.chartUrl, {headers: {Accept: "application/json"}});
    const answer = await response.json();
    if (response.status === 200) return answer;
    if (response.status !== 202) throw new Error(answer.detail ?? response.statusText);
    element.textContent = `The chart is rendered; ${answer.elapsed_s} s have passed.`;
    await new Promise(resolve => setTimeout(resolve, 1000));
  }
}

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

async function showChart(element) {
  try {
    const spec = element.dataset.chartUrl ? await fetchSpec(element) : readJson(element.dataset.chart);
    if (element.dataset.bands) spec.datasets.bands = readJson(element.dataset.bands);
    for (const part of spec.vconcat ?? []) part.width = element.clientWidth - 90;  // Vega-Lite does not fit stacked charts.
    const embed = () => vegaEmbed(element, spec, {
      ast: true, actions: false, defaultStyle: false, renderer: "svg", config: theme(element.clientWidth),
      tooltip: {disableDefaultStyle: true},
    });
    element.textContent = "";
    await embed();
    dark.addEventListener("change", embed);
    element.dataset.shown = "";
  } catch (error) {
    element.textContent = `The chart cannot be shown: ${error.message}`;
  }
}

const exactTime = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "long"});
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function relativeTime(moment) {
  const seconds = (Date.now() - moment) / 1000;
  const [unit, length] = UNITS.find(([unit, length]) => unit === "s" || Math.abs(seconds) >= 2 * length);
  const text = `${Math.round(Math.abs(seconds) / length)} ${unit}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

// The server writes the exact time in UTC. Here it becomes a relative one, with the exact local time on hover.
function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    element.textContent = relativeTime(moment);
    element.title = exactTime.format(moment);
  }
}

// A person may be about to use what is in the section, or has selected text in it: then it stays as it is.
function isInUse(section) {
  const focused = section.querySelector(":focus");
  const selection = getSelection();
  return (focused !== null && !focused.matches("summary, pre[id]")) || (!selection.isCollapsed && section.contains(selection.anchorNode));
}

function summaryOf(key, section) {
  return [...section.querySelectorAll("details[data-key]")].find(details => details.dataset.key === key)?.querySelector("summary");
}

// Replaces a section by its next version; what is open, the focus, and how far texts are scrolled stay.
function replaceSection(section, fresh) {
  const next = document.importNode(fresh, true);
  for (const details of section.querySelectorAll("details[data-key]")) {
    const summary = summaryOf(details.dataset.key, next);
    if (summary) summary.parentElement.open = details.open;
  }
  const focused = section.querySelector(":focus");
  const key = focused?.closest("details[data-key]")?.dataset.key;
  const scrolled = [...section.querySelectorAll("pre[id]")].map(text => ({
    id: text.id, top: text.scrollTop, atEnd: text.scrollTop + text.clientHeight >= text.scrollHeight - 4,
  }));
  section.replaceWith(next);
  for (const {id, top, atEnd} of scrolled) {
    const text = document.getElementById(id);
    if (text !== null) text.scrollTop = atEnd ? text.scrollHeight : top;
  }
  if (focused !== null) (focused.id ? document.getElementById(focused.id) : summaryOf(key, next))?.focus({preventScroll: true});
}

async function refresh() {
  if (document.hidden) return;
  const response = await fetch(location.href, {headers: {Accept: "text/html"}});
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const section of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(section.id);
    if (fresh === null) continue;
    if (section.id === "run" && !("live" in fresh.dataset)) {
      location.reload();  // The run has ended, and its artifacts can be shown.
      return;
    }
    showTimes(fresh);
    if (fresh.innerHTML !== section.innerHTML && !isInUse(section)) replaceSection(section, fresh);
  }
}

// The next one begins when this one is done: a slow server is not asked for several at once.
function keepRefreshing() {
  setTimeout(() => refresh().catch(() => {}).finally(keepRefreshing), 2000);
}

function followViews(nav) {
  nav.addEventListener("click", event => {
    const chosen = event.target.closest("a");
    if (chosen === null) return;
    for (const link of nav.querySelectorAll("a")) link.removeAttribute("aria-current");
    chosen.setAttribute("aria-current", "true");
  });
}

showTimes(document);
setInterval(() => showTimes(document), 15000);
document.querySelectorAll(".chart").forEach(showChart);
document.querySelectorAll("[data-views]").forEach(followViews);
for (const log of document.querySelectorAll("pre[id]")) log.scrollTop = log.scrollHeight;
if (document.querySelector("[data-live]")) keepRefreshing();
