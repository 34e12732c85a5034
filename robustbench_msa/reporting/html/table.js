"use strict";
// The leaderboard: sort by a column, filter rows by text, hide columns. References stay last, nulls before them.
(() => {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const nameOf = (row) => row.querySelector(".name").textContent.trim();

  function valueOf(row, column) {
    const text = row.querySelector(`td[data-column="${column}"]`).dataset.sort;
    return text === "" ? null : Number(text);
  }

  function sortBy(heading, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    const column = heading.dataset.column;
    const compare = (a, b) => {
      const last = a.classList.contains("reference") - b.classList.contains("reference");
      if (last) return last;
      if (column === undefined) return sign * nameOf(a).localeCompare(nameOf(b));
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y);
    };
    const sorted = [...body.rows].sort(compare);
    for (const row of sorted) body.append(row);
    const first = sorted.find((row) => row.classList.contains("reference"));
    for (const row of sorted) row.classList.toggle("first-reference", row === first);
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", direction);
  }

  for (const heading of table.querySelectorAll("th[aria-sort]")) {
    heading.querySelector("button").addEventListener("click", () => {
      const first = heading.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(heading, heading.getAttribute("aria-sort") === first ? other : first);
    });
  }

  function unchecked(name) {
    const boxes = [...document.querySelectorAll(`input[data-${name}]`)];
    return new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset[name]));
  }

  function update() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = page.hidden.has(row.dataset.entry) || !nameOf(row).toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    const [overs, metrics] = [unchecked("over"), unchecked("metric")];
    const isHidden = (cell) => overs.has(cell.dataset.over) || metrics.has(cell.dataset.metric);
    for (const cell of table.querySelectorAll("[data-column]")) cell.hidden = isHidden(cell);
    const headings = [...table.querySelectorAll("th[data-column]")];
    for (const over of table.querySelectorAll("th.over")) {
      const left = headings.filter((h) => h.dataset.over === over.dataset.over && !h.hidden).length;
      over.hidden = left === 0;
      over.colSpan = Math.max(left, 1);
    }
    const columns = headings.filter((h) => !h.hidden).length;
    const said = [`${shown} of ${rows.length} rows`];
    if (columns < headings.length) said.push(`${columns} of ${headings.length} columns`);
    document.getElementById("board-status").textContent = said.join(", ");
  }

  // On paper a wide table becomes several: a few headings each, with the names again, and words for buttons (which
  // browsers leave out of the heads that they repeat on every page).
  const PRINTED = 9;
  let printed = [];
  addEventListener("beforeprint", () => {
    const overs = [...table.querySelectorAll("th.over")].filter((over) => !over.hidden);
    const parts = [];
    let room = 0;
    for (const over of overs) {
      if (over.colSpan > room) {
        parts.push(new Set());
        room = PRINTED;
      }
      parts[parts.length - 1].add(over.dataset.over);
      room -= over.colSpan;
    }
    printed = parts.map((part) => {
      const copy = table.cloneNode(true);
      copy.removeAttribute("id");
      for (const cell of copy.querySelectorAll("[data-over]")) if (!part.has(cell.dataset.over)) cell.remove();
      for (const button of copy.querySelectorAll("button")) button.replaceWith(button.textContent);
      return copy;
    });
    table.after(...printed);
    table.hidden = true;
  });
  addEventListener("afterprint", () => {
    for (const copy of printed) copy.remove();
    printed = [];
    table.hidden = false;
  });

  filter.value = "";
  filter.addEventListener("input", update);
  for (const box of document.querySelectorAll("input[data-over], input[data-metric]")) {
    box.checked = true;
    box.addEventListener("change", update);
  }
  document.addEventListener("page-change", update);
  update();
})();
