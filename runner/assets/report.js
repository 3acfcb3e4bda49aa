"use strict";
// Draws the runs that stand in the page as data. Nothing is fetched, and no text of a run is ever taken for HTML.

const runs = JSON.parse(document.getElementById("runs").textContent);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = { PASS: "--ok", FAIL: "--fail", ERROR: "--fail", INCONCLUSIVE: "--unsure" };

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function add(parent, ...children) {
  parent.append(...children);
  return parent;
}

function head(run) {
  const title = make("h1");
  add(title, make("span", run.verdict, { class: run.verdict }), `  ${run.lab}: ${run.title}`);
  const facts = [`${run.submission} on ${run.backend}`, `seed ${run.seed}`, `${run.requests} requests, ${run.unanswered} without an answer`,
    `${run.load_s.toFixed(1)} s of load, ${run.seconds.toFixed(1)} s in all`, run.when];
  return add(make("header"), title, make("p", facts.join(" · "), { class: "facts" }));
}

function checks(run) {
  const section = add(make("section"), make("h2", "Promises"));
  const worstFirst = [...run.checks].sort((a, b) => (a.outcome === "PASS") - (b.outcome === "PASS"));
  for (const check of worstFirst) {
    const box = add(make("div", undefined, { class: "check" }), make("b", check.outcome, { class: check.outcome }), check.title);
    const list = make("dl");
    const bad = check.outcome !== "PASS";
    for (const [name, text] of [["promised", check.promised], ["seen", bad && check.seen], ["why", bad && check.why], ["hint", bad && check.hint]]) {
      if (text) add(list, make("dt", name), make("dd", text));
    }
    for (const c of worstOf(check.comparisons)) {
      if (c.what) add(list, make("dt", "measured"), make("dd", `${c.what}: ${Number(c.value.toPrecision(4))} (${c.is_upper ? "at most" : "at least"} ${c.limit})`));
    }
    add(section, add(box, list));
  }
  return section;
}

// A value that was compared several times is shown once, where it was nearest to its limit.
function worstOf(comparisons) {
  const worst = new Map();
  for (const c of comparisons) {
    const known = worst.get(c.what);
    if (!known || (c.is_upper ? c.value > known.value : c.value < known.value)) worst.set(c.what, c);
  }
  return worst.values();
}

function markLines(run) {
  return {
    hooks: {
      draw: [(chart) => {
        const { ctx } = chart;
        ctx.save();
        ctx.strokeStyle = css("--quiet");
        ctx.fillStyle = css("--quiet");
        ctx.font = `${11 * devicePixelRatio}px system-ui`;
        ctx.setLineDash([4, 4]);
        let labelled = -Infinity;
        run.marks.forEach((mark, number) => {
          const x = Math.round(chart.valToPos(mark.t, "x", true));
          if (x < chart.bbox.left || x > chart.bbox.left + chart.bbox.width) return;
          ctx.beginPath();
          ctx.moveTo(x, chart.bbox.top);
          ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
          ctx.stroke();
          if (x - labelled < 14 * devicePixelRatio) return;
          labelled = x;
          ctx.fillText(String(number + 1), x + 3, chart.bbox.top + 11 * devicePixelRatio);
        });
        ctx.restore();
      }],
    },
  };
}

function legend(entries) {
  return add(make("p", undefined, { class: "legend" }), ...entries.map(([name, c]) => make("i", name, { style: `--c: var(${c})` })));
}

const charts = [];

function draw(box, run, data, series, options) {
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } };
  const chart = new uPlot({
    width: Math.max(box.clientWidth, 200), height: 210, legend: { show: false }, cursor: { sync: { key: run.lab + run.when } }, plugins: [markLines(run)],
    scales: { x: { time: false, range: [0, run.until_s] }, ...options.scales },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((t) => `${t} s`) }, { ...axis, size: 64, values: options.values }],
    series: [{}, ...series],
  }, data, box);
  charts.push([chart, box]);
}

function timeline(run) {
  const section = add(make("section"), make("h2", "Timeline"));
  const rate = make("div", undefined, { class: "chart" }), latency = make("div", undefined, { class: "chart" });
  add(section, legend([["answered as the contract says, a second", "--ok"], ["refused or wrong", "--fail"], ["unknown: no answer, or a 5xx", "--unsure"]]), rate);
  add(section, legend([["median latency", "--p50"], ["95%", "--p95"], ["99%", "--p99"]]), latency);
  const list = make("ol", undefined, { class: "marks" });
  run.marks.forEach((mark, number) => add(list, add(make("li"), make("b", `${number + 1}`), `${mark.t.toFixed(2)} s  ${mark.what}`)));
  add(section, list);
  const line = (name) => ({ stroke: css(name), width: 2, points: { show: false } });
  const dots = (name) => ({ stroke: css(name), paths: () => null, points: { show: true, size: 5, fill: css(name), stroke: css(name) } });
  section.draw = () => {
    draw(rate, run, [run.timeline.t, run.timeline.ok, run.timeline.fail, run.timeline.unknown], [line("--ok"), line("--fail"), line("--unsure")],
      { scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } }, values: (_, ticks) => ticks.map((v) => `${v}/s`) });
    draw(latency, run, [run.timeline.t, run.timeline.p50, run.timeline.p95, run.timeline.p99], [dots("--p50"), dots("--p95"), dots("--p99")],
      { scales: { y: { distr: 3, log: 10 } }, values: (_, ticks) => ticks.map((v) => (v === null ? "" : v >= 1000 ? `${v / 1000} s` : `${v} ms`)) });
  };
  return section;
}

const palette = ["--p50", "--p99", "--unsure", "--ok", "--fail", "--p95"];

function servers(run) {
  const section = add(make("section"), make("h2", "Servers"), make("p", "what they counted themselves, read four times a second", { class: "facts" }));
  const boxes = run.counters.map((chart) => {
    const names = Object.keys(chart.series);
    const box = make("div", undefined, { class: "chart" });
    add(section, make("h3", chart.title), legend(names.map((name, n) => [name, palette[n % palette.length]])), box);
    return [chart, box];
  });
  section.draw = () => {
    for (const [chart, box] of boxes) {
      const series = Object.values(chart.series).map((_, n) => ({ stroke: css(palette[n % palette.length]), width: 2, points: { show: false } }));
      draw(box, run, [chart.t, ...Object.values(chart.series)], series, { scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } } });
    }
  };
  return section;
}

function table(title, note, columns, rows) {
  const section = add(make("section"), make("h2", title));
  if (note) add(section, make("p", note, { class: "facts" }));
  const body = make("table");
  add(body, add(make("tr"), ...columns.map((c) => make("th", c))));
  for (const row of rows) add(body, add(make("tr"), ...row.map((cell) => make("td", cell === null ? "-" : String(cell)))));
  add(section, add(make("div", undefined, { class: "scroll" }), body));
  return section;
}

function logs(run) {
  const section = add(make("section"), make("h2", "Logs"));
  for (const log of run.logs) add(section, add(make("details"), make("summary", `${log.name} (${log.bytes} bytes${log.is_cut ? ", the end of it" : ""})`), make("pre", log.text)));
  return section;
}

const main = document.querySelector("main");
if (runs.length > 1) main.classList.add("pair");
const drawn = [];
for (const run of runs) {
  const article = add(make("article"), head(run), checks(run));
  if (run.requests) {
    drawn.push(timeline(run));
    add(article, drawn[drawn.length - 1]);
    if (run.counters.length) {
      drawn.push(servers(run));
      add(article, drawn[drawn.length - 1]);
    }
  }
  for (const t of run.tables) add(article, table(t.title, t.note, t.columns, t.rows));
  add(article, logs(run));
  add(main, article);
}

function drawAll() {
  for (const [chart] of charts) chart.destroy();
  charts.length = 0;
  for (const section of drawn) section.draw();
}

drawAll();
addEventListener("resize", () => charts.forEach(([chart, box]) => chart.setSize({ width: Math.max(box.clientWidth, 200), height: 210 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
