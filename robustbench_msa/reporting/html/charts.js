"use strict";
// Draws the charts that are shown, each once, a few at a time; the figures come ready from the page's data.
(() => {
  const figures = JSON.parse(document.getElementById("chart-data").textContent);
  const slots = [...document.querySelectorAll(".chart")];
  const boxes = [...document.querySelectorAll("[data-bands]")];
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1b1f24" };
  const touch = matchMedia("(pointer: coarse)").matches;
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    showLink: false,
    showSendToCloud: false,
    showEditInChartStudio: false,
    plotlyServerURL: "",
    scrollZoom: false,
    displayModeBar: touch ? false : "hover",
    modeBarButtonsToRemove: ["sendDataToCloud", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
    toImageButtonOptions: { format: "svg" },
  };

  const isVisible = (slot) => slot.offsetParent !== null;
  const isShown = (meta) => !(meta && meta.entry !== undefined && page.hidden.has(String(meta.entry)));
  const withBands = () => boxes.some((box) => box.checked);

  function axis(given, categorical) {
    const line = { linecolor: "#7b8592", showline: true, ticks: "outside", ticklen: 4, tickcolor: "#7b8592" };
    const title = { ...given.title, font: { size: 12 }, standoff: 6 };
    return { ...line, automargin: true, ...given, title, fixedrange: touch || categorical };
  }

  function layoutOf(figure, range) {
    const flat = figure.data.some((trace) => trace.type === "heatmap");
    return {
      ...figure.layout,
      autosize: true,
      font: flat ? { ...font, size: 11 } : font,
      margin: { l: 54, r: 12, t: 30, b: 48 }, // above: room for the buttons that hovering brings
      paper_bgcolor: "#fff",
      plot_bgcolor: figure.layout.plot_bgcolor || "#fff",
      hovermode: "closest",
      hoverdistance: 30,
      dragmode: touch || flat ? false : "zoom",
      hoverlabel: { bgcolor: "#fff", font: { ...font, size: 13 }, align: "left", namelength: -1 },
      xaxis: axis(figure.layout.xaxis, flat),
      yaxis: axis({ ...figure.layout.yaxis, ...(range && { range }) }, flat),
    };
  }

  function visible(trace) {
    return isShown(trace.meta) && (!trace.meta || !trace.meta.band || trace.meta.entry === undefined || withBands());
  }

  // The range of several charts, from what is shown of them.
  function rangeOf(shared) {
    const values = [];
    for (const { data, layout } of Object.values(figures)) {
      if (!layout.meta || layout.meta.shared !== shared) continue;
      for (const trace of data) if (visible(trace)) values.push(...trace.y.filter((y) => y !== null));
    }
    if (!values.length) return null;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.05 * (high - low) || 0.05;
    return [low - room, high + room];
  }

  // A grid of models by sets: its rows are models, so hiding a model takes its row out.
  function withoutRows(figure) {
    const owners = figure.layout.meta && figure.layout.meta.rows;
    if (!owners) return figure;
    const keep = owners.map((entry, i) => i).filter((i) => isShown({ entry: owners[i] }));
    const [trace, words] = figure.data;
    const pick = (rows) => keep.map((i) => rows[i]);
    const y = keep.map((_, i) => i);
    const left = words.y.map((_, i) => i).filter((i) => keep.includes(words.y[i]));
    const moved = {
      ...words,
      x: left.map((i) => words.x[i]),
      y: left.map((i) => keep.indexOf(words.y[i])),
      text: left.map((i) => words.text[i]),
      textfont: { color: left.map((i) => words.textfont.color[i]) },
    };
    return {
      data: [{ ...trace, y, z: pick(trace.z), hovertext: pick(trace.hovertext) }, moved],
      layout: {
        ...figure.layout,
        height: 80 + 26 * Math.max(keep.length, 1),
        yaxis: {
          ...figure.layout.yaxis,
          tickvals: y,
          ticktext: pick(figure.layout.yaxis.ticktext).map(narrow ? broken : String),
          range: [keep.length - 0.5, -0.5],
        },
      },
    };
  }

  // Long names in two lines, so that cells have room on a phone.
  function broken(name) {
    const at = name.indexOf(", ");
    return at < 0 ? name : `${name.slice(0, at)}<br>${name.slice(at + 2)}`;
  }

  function draw(slot) {
    const figure = withoutRows(figures[slot.id]);
    const data = figure.data.map((trace, i) => ({ ...trace, uid: `t${i}`, visible: visible(trace) }));
    const options = { ...config, toImageButtonOptions: { format: "svg", filename: slot.id } };
    const first = !slot.dataset.drawn;
    slot.dataset.drawn = "true";
    const shared = figure.layout.meta && figure.layout.meta.shared;
    Plotly.react(slot, data, layoutOf(figure, shared && ranges.get(shared)), options);
    if (first) {
      slot.on("plotly_hover", (event) => lift(event.points[0].data.meta));
      slot.on("plotly_unhover", () => lift(null));
    }
  }

  // One line in front of the others, in all charts.
  function lift(meta) {
    const entry = meta && meta.entry;
    for (const slot of slots) {
      if (!slot.dataset.drawn || !isVisible(slot) || !slot.data) continue;
      slot.data.forEach((trace, i) => {
        const mark = slot.querySelector(`.scatterlayer .tracet${i}`);
        if (!mark || !trace.meta || trace.meta.entry === undefined) return;
        mark.style.opacity = entry === undefined || entry === null || trace.meta.entry === entry ? "" : "0.15";
      });
    }
  }

  const ranges = new Map();
  let stale = new Set(slots);
  let waiting = false;
  function drawSome(deadline) {
    const until = performance.now() + deadline;
    for (const slot of slots) {
      if (!stale.has(slot) || !isVisible(slot)) continue;
      stale.delete(slot);
      draw(slot);
      if (performance.now() > until) break;
    }
    waiting = slots.some((slot) => stale.has(slot) && isVisible(slot));
    if (waiting) setTimeout(() => drawSome(30), 0);
    else document.body.dataset.drawn = "true";
  }

  function refresh() {
    stale = new Set(slots);
    for (const { layout } of Object.values(figures)) {
      const shared = layout.meta && layout.meta.shared;
      if (shared) ranges.set(shared, null);
    }
    for (const shared of ranges.keys()) ranges.set(shared, rangeOf(shared));
    delete document.body.dataset.drawn;
    if (!waiting) {
      waiting = true;
      setTimeout(() => drawSome(30), 0);
    }
  }

  document.addEventListener("page-change", refresh);
  for (const box of boxes) {
    box.addEventListener("change", () => {
      for (const other of boxes) other.checked = box.checked;
      refresh();
    });
  }
  for (const button of document.querySelectorAll("[data-toggle]")) {
    const entry = Number(button.dataset.toggle);
    for (const kind of ["mouseenter", "focus"]) button.addEventListener(kind, () => lift({ entry }));
    for (const kind of ["mouseleave", "blur"]) button.addEventListener(kind, () => lift(null));
  }

  // On paper charts have the width of the paper's columns, not that of the window.
  let widths = [];
  addEventListener("beforeprint", () => {
    lift(null);
    drawSome(Infinity);
    const drawn = slots.filter((slot) => slot.dataset.drawn && isVisible(slot));
    widths = drawn.map((slot) => [slot, slot.layout.width]);
    for (const slot of drawn) Plotly.relayout(slot, { width: slot.closest(".single") ? 640 : 308 });
  });
  addEventListener("afterprint", () => {
    for (const [slot] of widths) Plotly.relayout(slot, { width: null, autosize: true });
    widths = [];
  });

  refresh();
})();
