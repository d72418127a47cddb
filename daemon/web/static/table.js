// Build, paint, filter, sort and select the rows of the table.

const COLUMNS = [
  ["symbol", "Symbol", "ascending"], ["mini", "", null], ["close", "Close", null],
  ["forecast", "Forecast", null], ["change", "Change", "descending"],
  ["interval", "Interval", null], ["error", "Error ÷ last", "descending"],
  ["ready", "Ready", "descending"], ["state", "State", "descending"],
];
const RESORT_INTERVAL_MS = 2000;

let sortedMs = 0;  // when the rows were last sorted

const buildRow = (row) => {
  const element = document.createElement("div");
  element.setAttribute("role", "row");
  element.tabIndex = -1;
  element.dataset.symbol = row.symbol;
  row.cells = {};
  for (const [name] of COLUMNS) {
    const cell = document.createElement("div");
    cell.setAttribute("role", "gridcell");
    cell.className = name === "symbol" || name === "mini" ? name : `${name} n`;
    row.cells[name] = cell;
    element.append(cell);
  }
  setText(row.cells.symbol, row.symbol);
  row.element = element;
  rowObserver.observe(element);
};

const rowObserver = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.dataset.symbol);
    if (!row) continue;
    row.visible = isIntersecting;
    row.dirty = true;
    if (!isIntersecting) { row.canvas?.remove(); row.canvas = null; }
    else if (!row.series) requestSeries(row);
  }
  schedulePaint();
}, { rootMargin: "120px" });

const paintRow = (row) => {
  const isValid = hasValidForecast(row), cells = row.cells;
  setClass(row.element, "none", !isValid);
  setClass(row.element, "late", row.late === true);
  setText(cells.state, stateOf(row, isValid));
  if (!row.dirty && row.isValid === isValid) return;
  row.dirty = false;
  row.isValid = isValid;
  setText(cells.close, price(row.close));
  setText(cells.forecast, price(row.predicted));
  setText(cells.change, row.predicted === null ? "–" : percent(change(row)));
  setText(cells.interval, row.lower === null ? "–" : `${price(row.lower)} – ${price(row.upper)}`);
  paintError(cells.error, row);
  setText(cells.ready, row.ready_ms === null ? "–" : `${milliseconds(row.ready_ms)} ms`);
  if (!row.series) return;
  if (!row.canvas) {
    row.canvas = document.createElement("canvas");
    row.canvas.setAttribute("aria-hidden", "true");
    cells.mini.append(row.canvas);
  }
  Chart.draw(row.canvas, row.series, { count: MINI_CANDLES, mini: true, expired: !isValid });
};

const paintError = (cell, row) => {
  if (row.ratio === null) { setText(cell, "–"); return; }
  const text = row.ratio.toFixed(3), stderr = ` ±${row.stderr.toFixed(3)}`;
  if (cell.textContent === text + stderr) return;
  const small = document.createElement("small");
  small.textContent = stderr;
  cell.replaceChildren(text, small);
};

const stateOf = (row, isValid) => {
  if (isValid) return row.stale ? "stale" : `${age(row.valid_until_ms - now() + 999)} left`;
  const since = row.predicted === null ? 0 : now() - row.valid_until_ms;
  return since >= 3000 ? `no forecast · ${age(since)}` : "no forecast";
};

const SORT_KEYS = {
  symbol: (row) => row.symbol,
  change: (row) => (hasValidForecast(row) ? Math.abs(change(row)) : -1),
  error: (row) => row.ratio ?? -1,
  ready: (row) => row.ready_ms ?? -1,
  // Longest without a forecast first.
  state: (row) => (row.predicted === null ? Infinity : now() - row.valid_until_ms + (row.stale ? 1e12 : 0)),
};

const arrangeRows = () => {
  sortedMs = Date.now();
  const filter = $("filter").value.trim().toLowerCase();
  let matching = order.map((symbol) => rows.get(symbol)).filter((row) => row && row.symbol.toLowerCase().includes(filter));
  if (sort.key) {
    const key = SORT_KEYS[sort.key], sign = sort.sign;
    const keyed = matching.map((row, i) => [key(row), i, row]);
    keyed.sort((a, b) => (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : a[1] - b[1]));
    matching = keyed.map((entry) => entry[2]);
  }
  const elements = matching.map((row) => row.element), body = $("rows");
  if (elements.length !== body.children.length || elements.some((element, i) => body.children[i] !== element)) {
    const focused = document.activeElement;
    body.replaceChildren(...elements);
    if (focused?.dataset?.symbol) focused.focus({ preventScroll: true });
  }
  $("grid").setAttribute("aria-rowcount", String(elements.length + 1));
  setText($("count"), filter ? `${formatInteger(elements.length)} of ${plural(rows.size, "symbol")}` : plural(rows.size, "symbol"));
  if (!matching.some((row) => row.symbol === selected) && matching.length) select(matching[0].symbol);
  markSelected();
};

const markSelected = () => {
  for (const element of $("rows").children) {
    const is = element.dataset.symbol === selected;
    if ((element.getAttribute("aria-selected") === "true") === is) continue;
    element.setAttribute("aria-selected", String(is));
    element.tabIndex = is ? 0 : -1;
  }
};

const select = (symbol) => {
  if (symbol === selected) return;
  selected = symbol;
  cursorMs = null;
  markSelected();
  const row = rows.get(symbol);
  if (row && (row.series?.depth ?? 0) < CHART_CANDLES) requestSeries(row);
  schedulePaint();
};

const buildHeader = () => {
  for (const [name, title, first] of COLUMNS) {
    const cell = document.createElement("div");
    cell.setAttribute("role", "columnheader");
    cell.className = name === "symbol" || name === "mini" ? name : `${name} n`;
    if (first === null) { cell.textContent = title; if (!title) cell.setAttribute("aria-label", "Recent candles"); }
    else {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => sortBy(cell, name, first));
      cell.append(button);
    }
    $("heads").append(cell);
  }
};

// Clicks cycle: first direction, other direction, order of the configuration.
const sortBy = (cell, key, first) => {
  const other = first === "ascending" ? "descending" : "ascending";
  const before = cell.getAttribute("aria-sort");
  const next = before === first ? other : before === other ? null : first;
  for (const head of $("heads").children) head.removeAttribute("aria-sort");
  if (next) cell.setAttribute("aria-sort", next);
  sort = { key: next && key, sign: next === "ascending" ? 1 : -1 };
  arrangeRows();
  schedulePaint();
};
