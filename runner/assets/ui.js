"use strict";
// Follows a run by its server-sent events: what it says, charts that grow, the verdict. No text of a run is ever taken for HTML.

const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const live = $("live");
const points = [];
const marks = [];
let charts = [];

function make(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function addTo(parent, ...children) {
  parent.append(...children);
  return parent;
}

// Charts: the same two as in a run's report, drawn anew as points come in.

const RATE = [["ok", "answered as the contract says, a second", "rate", "--ok"], ["fail", "refused or wrong", "bad", "--fail"],
  ["unknown", "unknown: no answer, or a 5xx", "unsure", "--unsure"]];
const LATENCY = [["p50", "median latency", "p50", "--p50"], ["p95", "95%", "p95", "--p95"], ["p99", "99%", "p99", "--p99"]];
// Over several decades only the powers of ten are ruled.
const decades = (_, splits) => (splits[splits.length - 1] / splits[0] > 20 ? splits.map((v) => (Number.isInteger(Math.log10(v)) ? v : null)) : splits);
const inTime = (_, ticks) => ticks.map((v) => (v === null ? "" : v >= 1000 ? `${v / 1000} s` : `${v} ms`));

function drawMarks(chart) {
  const { ctx } = chart;
  ctx.save();
  ctx.strokeStyle = css("--quiet");
  ctx.setLineDash([4, 4]);
  for (const mark of marks) {
    const x = Math.round(chart.valToPos(mark.t, "x", true));
    if (x < chart.bbox.left || x > chart.bbox.left + chart.bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, chart.bbox.top);
    ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function makeChart(entries, look, scale, values, filter) {
  const legend = make("p", undefined, "legend");
  for (const [, words, kind] of entries) legend.append(make("i", words, kind));
  const box = make("div", undefined, "chart");
  addTo($("charts"), legend, box);
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } };
  const chart = new uPlot({
    width: Math.max(box.clientWidth, 200), height: 180, legend: { show: false }, plugins: [{ hooks: { draw: [drawMarks] } }],
    scales: { x: { time: false, range: (_, low, high) => [0, Math.max(high || 0, 5)] }, y: scale },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((t) => `${t} s`) }, { ...axis, size: 64, values, grid: { ...axis.grid, ...(filter ? { filter } : {}) } }],
    series: [{}, ...entries.map(([, , , colour]) => look(css(colour)))],
  }, columnsOf(entries), box);
  charts.push([chart, box, entries]);
}

function columnsOf(entries) {
  return [points.map((p) => p.t), ...entries.map(([name]) => points.map((p) => p[name]))];
}

function drawCharts() {
  charts.forEach(([chart]) => chart.destroy());
  charts = [];
  $("charts").replaceChildren();
  if (points.length === 0) return;
  makeChart(RATE, (stroke) => ({ stroke, width: 2, points: { size: 5, fill: stroke } }), { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] },
    (_, ticks) => ticks.map((v) => `${v}/s`));
  makeChart(LATENCY, (stroke) => ({ stroke, paths: () => null, points: { show: true, size: 5, fill: stroke, stroke } }), { distr: 3, log: 10 }, inTime, decades);
}

function addPoints(fresh) {
  for (const point of fresh) {
    // A quarter of a second in which nothing ended is a gap in the latencies and a zero in the rates.
    while (points.length < point.n) points.push({ t: (points.length + 0.5) * 0.25, ok: 0, fail: 0, unknown: 0, p50: null, p95: null, p99: null });
    points[point.n] = point;
  }
  if (charts.length === 0) drawCharts();
  else charts.forEach(([chart, , entries]) => chart.setData(columnsOf(entries)));
}

// Words.

function addLine(text) {
  const box = $("lines");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  box.append(text + "\n");
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function showEnd(event) {
  document.title = `${event.verdict} ${document.title}`;
  $("verdict").textContent = event.verdict;
  $("verdict").className = event.verdict;
  $("facts").textContent = event.facts;
  const worstFirst = [...event.checks].sort((a, b) => (a.outcome === "PASS") - (b.outcome === "PASS"));
  for (const check of worstFirst) {
    const list = make("dl");
    const isBad = check.outcome !== "PASS";
    for (const [name, text] of [["promised", check.promised], ["seen", isBad && check.seen], ["why", isBad && check.why], ["hint", isBad && check.hint]]) {
      if (text) addTo(list, make("dt", name), make("dd", text));
    }
    addTo($("checks"), addTo(make("div", undefined, "check"), make("b", check.outcome, check.outcome), check.title, list));
  }
  if (event.report) {
    $("report").firstElementChild.href = event.report;
    $("report").hidden = false;
    $("output").open = false;
  }
}

// What the run has changed: the state, the buttons, the list of runs, the debrief.
async function freshen() {
  const answer = await fetch(location.pathname);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of page.querySelectorAll("[data-fresh]")) $(part.id).replaceWith(part);
}

const source = new EventSource(live.dataset.events);
source.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.kind === "line") addLine(event.text);
  else if (event.kind === "points") { if (event.points.length) addPoints(event.points); }
  else if (event.kind === "mark") marks.push(event);
  else if (event.kind === "end") {
    source.close();
    showEnd(event);
    freshen();
  }
};
source.onerror = () => {
  if (source.readyState !== EventSource.CLOSED) return;
  $("verdict").textContent = "lost from sight";
  $("facts").textContent = "the server of this page has ended, or runs something else by now";
};
addEventListener("resize", () => charts.forEach(([chart, box]) => chart.setSize({ width: Math.max(box.clientWidth, 200), height: 180 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
