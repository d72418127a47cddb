// The page: what the daemon tells by server-sent events, as a headline, five figures, a chart and rows.

(() => {
  const CANDLES = 120, MINI = 32, AT_ONCE = 32, DEEP = 240;
  const SILENT_MS = 5000, AGAIN_MS = 2000, RESORT_MS = 2000;
  // Rows say at once that a forecast has expired; the headline does not cry at every close.
  const GRACE_MS = 500;
  const COLUMNS = [
    ["symbol", "Symbol", "ascending"], ["mini", "", null], ["close", "Close", null],
    ["forecast", "Forecast", null], ["change", "Change", "descending"],
    ["interval", "Interval", null], ["error", "Error ÷ last", "descending"],
    ["ready", "Ready", "descending"], ["state", "State", "descending"],
  ];
  const $ = (id) => document.getElementById(id);
  const rows = new Map();          // symbol → {…fields, element, cells, series, shown}
  let fields = [], state = null, ahead = 0, order = [];
  let chosen = null, pointed = null, sort = { key: null, sign: 1 }, sorted = 0;
  let heard = 0, source = null, link = "connecting", lastFeed = null, rate = null;
  let wanted = new Set(), asking = false;

  const now = () => Date.now() + ahead;
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const flag = (element, name, on) => { if (element.classList.contains(name) !== on) element.classList.toggle(name, on); };
  const whole = (number) => Math.round(number).toLocaleString("en-US");
  const plural = (n, one) => `${whole(n)} ${one}${n === 1 ? "" : "s"}`;

  const price = (value) => {
    if (value === null) return "–";
    // Other prices than these are written with an exponent, or their digits would not fit.
    if (!(value >= 1e-6 && value < 1e15)) return value.toExponential(5);
    const before = Math.floor(Math.log10(value)) + 1;
    const digits = Math.max(0, (before > 0 ? 7 : 6) - before);
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  const percent = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value * 100).toFixed(3)} %`;
  const millis = (value) => (value >= 100 ? whole(value) : value.toPrecision(2));
  const age = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 120) return `${s} s`;
    if (s < 7200) return `${Math.floor(s / 60)} min`;
    return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
  };
  const time = (ms) => new Date(ms).toTimeString().slice(0, 8);

  const valid = (row) => row.predicted !== null && now() < row.valid_until_ms;
  const change = (row) => row.predicted / row.last - 1;

  // ---- what the daemon tells -------------------------------------------------------------------

  const connect = () => {
    const mine = source = new EventSource("/events");
    heard = Date.now();
    const on = (name, take) => source.addEventListener(name, (message) => {
      if (mine !== source) return;
      heard = Date.now();
      take(JSON.parse(message.data));
      joined("live");
      paintSoon();
    });
    on("all", takeAll);
    on("rows", (list) => list.forEach(takeRow));
    on("state", takeState);
    source.onerror = () => { if (mine === source) lose(); };
  };

  // The browser's own reconnecting gives up after a refusal, and trusts a connection that is dead.
  const lose = () => {
    source.close();
    source = null;
    joined("lost");
    setTimeout(connect, AGAIN_MS);
  };

  const joined = (to) => {
    if (link === to) return;
    link = document.body.dataset.link = to;
    paintSoon();
  };

  const takeAll = ({ fields: names, rows: list }) => {
    fields = names;
    const told = new Set(list.map((values) => values[0]));
    for (const [symbol, row] of rows) {
      if (!told.has(symbol)) { row.element.remove(); rows.delete(symbol); }
    }
    for (const row of rows.values()) row.series = null;
    list.forEach(takeRow);
    order = list.map((values) => values[0]);
    if (!rows.has(chosen)) choose(order[0] ?? null);
    arrange();
    for (const row of rows.values()) if (row.shown || row.symbol === chosen) want(row);
  };

  const takeRow = (values) => {
    const symbol = values[0];
    let row = rows.get(symbol);
    if (!row) {
      row = { symbol, series: null, shown: false };
      rows.set(symbol, row);
      build(row);
    }
    fields.forEach((name, i) => { row[name] = values[i]; });
    row.dirty = true;
    if (row.series) extend(row);
  };

  // Goes on with the series; what does not follow on it is asked for anew.
  const extend = (row) => {
    const { candles, forecasts, step } = row.series;
    const newest = candles.at(-1)?.[0] ?? -Infinity;
    const candle = [row.open_ms, row.open, row.high, row.low, row.close];
    if (row.open_ms === newest + step) candles.push(candle);
    else if (row.open_ms === newest) candles[candles.length - 1] = candle;
    else { row.series = null; want(row); return; }
    if (row.predicted !== null) forecasts.set(row.target_ms, [row.target_ms, row.predicted, row.lower, row.upper]);
    while (candles.length > DEEP) forecasts.delete(candles.shift()[0]);
  };

  const takeState = (told) => {
    if (state) {
      const passed = (told.now_ms - state.now_ms) / 1000;
      if (passed > 0) rate = (told.messages - state.messages) / passed;
    }
    if (!state || told.messages !== state.messages) lastFeed = told.now_ms;
    state = told;
    ahead = told.now_ms - Date.now();
  };

  // ---- series for charts, asked for when they are looked at --------------------------------------

  const want = (row) => { wanted.add(row.symbol); if (!asking) setTimeout(ask, 20); };

  const ask = async () => {
    if (asking || !wanted.size || link === "lost") return;
    asking = true;
    const batch = wanted.has(chosen) ? [chosen] : [...wanted].slice(0, AT_ONCE);
    const limit = batch[0] === chosen ? CANDLES : MINI;
    batch.forEach((symbol) => wanted.delete(symbol));
    try {
      const query = new URLSearchParams([["limit", limit], ...batch.map((symbol) => ["symbol", symbol])]);
      const answer = await fetch(`/series?${query}`);
      if (!answer.ok) throw new Error(`series: ${answer.status}`);
      const told = await answer.json();
      for (const symbol of batch) {
        const row = rows.get(symbol);
        if (row) adopt(row, told[symbol], limit);
      }
    } catch {
      batch.forEach((symbol) => rows.has(symbol) && wanted.add(symbol));
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
    asking = false;
    paintSoon();
    if (wanted.size) ask();
  };

  const adopt = (row, { candles, forecasts }, depth) => {
    row.series = { step: state.step_ms, candles, forecasts: new Map(forecasts.map((f) => [f[0], f])), depth };
    row.dirty = true;
    if (row.predicted !== null) row.series.forecasts.set(row.target_ms, [row.target_ms, row.predicted, row.lower, row.upper]);
  };

  // ---- rows ------------------------------------------------------------------------------------

  const build = (row) => {
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
    say(row.cells.symbol, row.symbol);
    row.element = element;
    watcher.observe(element);
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const row = rows.get(target.dataset.symbol);
      if (!row) continue;
      row.shown = isIntersecting;
      row.dirty = true;
      if (!isIntersecting) { row.canvas?.remove(); row.canvas = null; }
      else if (!row.series) want(row);
    }
    paintSoon();
  }, { rootMargin: "120px" });

  const paintRow = (row) => {
    const alive = valid(row), cells = row.cells;
    flag(row.element, "none", !alive);
    flag(row.element, "late", row.late === true);
    say(cells.state, stateOf(row, alive));
    if (!row.dirty && row.alive === alive) return;
    row.dirty = false;
    row.alive = alive;
    say(cells.close, price(row.close));
    say(cells.forecast, price(row.predicted));
    say(cells.change, row.predicted === null ? "–" : percent(change(row)));
    say(cells.interval, row.lower === null ? "–" : `${price(row.lower)} – ${price(row.upper)}`);
    paintError(cells.error, row);
    say(cells.ready, row.ready_ms === null ? "–" : `${millis(row.ready_ms)} ms`);
    if (!row.series) return;
    if (!row.canvas) {
      row.canvas = document.createElement("canvas");
      row.canvas.setAttribute("aria-hidden", "true");
      cells.mini.append(row.canvas);
    }
    Chart.draw(row.canvas, row.series, { count: MINI, small: true, ended: !alive });
  };

  const paintError = (cell, row) => {
    if (row.ratio === null) { say(cell, "–"); return; }
    const text = row.ratio.toFixed(3), spread = ` ±${row.stderr.toFixed(3)}`;
    if (cell.textContent === text + spread) return;
    const small = document.createElement("small");
    small.textContent = spread;
    cell.replaceChildren(text, small);
  };

  const stateOf = (row, alive) => {
    if (alive) return row.stale ? "stale" : `${age(row.valid_until_ms - now() + 999)} left`;
    const since = row.predicted === null ? 0 : now() - row.valid_until_ms;
    return since >= 3000 ? `no forecast · ${age(since)}` : "no forecast";
  };

  const KEYS = {
    symbol: (row) => row.symbol,
    change: (row) => (valid(row) ? Math.abs(change(row)) : -1),
    error: (row) => row.ratio ?? -1,
    ready: (row) => row.ready_ms ?? -1,
    // The longest without a forecast first.
    state: (row) => (row.predicted === null ? Infinity : now() - row.valid_until_ms + (row.stale ? 1e12 : 0)),
  };

  const arrange = () => {
    sorted = Date.now();
    const filter = $("filter").value.trim().toLowerCase();
    let shown = order.map((symbol) => rows.get(symbol)).filter((row) => row && row.symbol.toLowerCase().includes(filter));
    if (sort.key) {
      const key = KEYS[sort.key], sign = sort.sign;
      const keyed = shown.map((row, i) => [key(row), i, row]);
      keyed.sort((a, b) => (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : a[1] - b[1]));
      shown = keyed.map((entry) => entry[2]);
    }
    const elements = shown.map((row) => row.element), body = $("rows");
    if (elements.length !== body.children.length || elements.some((element, i) => body.children[i] !== element)) {
      const focused = document.activeElement;
      body.replaceChildren(...elements);
      if (focused?.dataset?.symbol) focused.focus({ preventScroll: true });
    }
    $("grid").setAttribute("aria-rowcount", String(elements.length + 1));
    say($("count"), filter ? `${whole(elements.length)} of ${plural(rows.size, "symbol")}` : plural(rows.size, "symbol"));
    if (!shown.some((row) => row.symbol === chosen) && shown.length) choose(shown[0].symbol);
    mark();
  };

  const mark = () => {
    for (const element of $("rows").children) {
      const is = element.dataset.symbol === chosen;
      if ((element.getAttribute("aria-selected") === "true") === is) continue;
      element.setAttribute("aria-selected", String(is));
      element.tabIndex = is ? 0 : -1;
    }
  };

  const choose = (symbol) => {
    if (symbol === chosen) return;
    chosen = symbol;
    pointed = null;
    mark();
    const row = rows.get(symbol);
    if (row && (row.series?.depth ?? 0) < CANDLES) want(row);
    paintSoon();
  };

  // ---- painting --------------------------------------------------------------------------------

  let painting = false;
  const paintSoon = () => {
    if (painting) return;
    painting = true;
    requestAnimationFrame(() => { painting = false; paint(); });
  };

  const paint = () => {
    paintLink();
    if (!state || !rows.size) return;
    $("focus").hidden = $("symbols").hidden = false;
    $("tools").hidden = rows.size === 1;
    const list = [...rows.values()];
    paintHeadline(list);
    paintFigures(list);
    for (const row of list) if (row.shown) paintRow(row);
    paintFocus();
  };

  const paintLink = () => {
    say($("link-text"), link === "lost" ? "disconnected, trying again" : link);
    if (link === "lost" && state) {
      say($("headline"), `Disconnected. What you see is from ${time(state.now_ms)}.`);
      flag($("headline"), "trouble", true);
    } else if (link === "lost") {
      say($("headline"), "The daemon does not answer.");
    }
    document.title = link === "lost" ? "× candlecast" : "candlecast";
  };

  const paintHeadline = (list) => {
    if (link !== "live") return;
    const without = list.filter((row) => row.predicted === null || now() - row.valid_until_ms > GRACE_MS).length;
    const text = state.warming_up && without === list.length ? "Warming up: no forecast yet."
      : without === 0 ? (list.length === 1 ? `${list[0].symbol} has a forecast.` : `All ${plural(list.length, "symbol")} have a forecast.`)
      : list.length === 1 ? `No forecast for ${list[0].symbol}.`
      : without === list.length ? "No symbol has a forecast."
      : `${whole(without)} of ${plural(list.length, "symbol")} ${without === 1 ? "has" : "have"} no forecast.`;
    say($("headline"), text);
    flag($("headline"), "trouble", without > 0 || !state.broker_connected);
    say($("where"), `${state.exchange} · ${state.timeframe} · ${state.instance}`);
  };

  const figure = (id, value, unit, lines, trouble = false) => {
    const element = $(id);
    if (element.dataset.told !== `${value} ${unit}`) {
      element.dataset.told = `${value} ${unit}`;
      const small = document.createElement("small");
      small.textContent = unit;
      element.replaceChildren(value, small);
    }
    flag(element, "trouble", trouble);
    const note = $(`${id}-note`), told = lines.filter(Boolean);
    if (note.dataset.told === told.join("\n")) return;
    note.dataset.told = told.join("\n");
    note.replaceChildren(...told.map((text) => {
      const line = document.createElement("span");
      line.textContent = text;
      return line;
    }));
  };

  const paintFigures = (list) => {
    paintSkill();
    const ready = list.filter((row) => row.ready_ms !== null).map((row) => row.ready_ms).sort((a, b) => a - b);
    const budget = state.budget_s * 1000, slowest = ready.at(-1) ?? 0;
    figure("latency", ready.length ? millis(ready[ready.length >> 1]) : "–", ready.length ? " ms" : "", [
      ready.length > 1 && `slowest ${millis(slowest)} ms`,
      state.p99_below_s !== null && `99 % below ${millis(state.p99_below_s * 1000)} ms`,
      `budget ${millis(budget)} ms`,
    ], slowest > budget);
    paintEdges();
  };

  const paintSkill = () => {
    const { mae_ratio: ratio, mae_ratio_stderr: spread } = state;
    const share = (value, text) => value !== null && `${(100 * value).toFixed(0)} % ${text}`;
    if (ratio === null) { figure("skill", "–", "", ["not enough scored forecasts yet"]); return; }
    const verdict = ratio + 2 * spread < 1 ? "better than staying put"
      : ratio - 2 * spread > 1 ? "worse than staying put" : "no different from staying put";
    figure("skill", ratio.toFixed(3), ` ±${spread.toFixed(3)}`, [
      verdict, share(state.direction, "of moves called right"), share(state.coverage, "inside the interval"),
    ]);
  };

  const paintEdges = () => {
    const quiet = now() - lastFeed, silent = quiet > Math.max(15000, state.step_ms / 2);
    const offset = state.clock_offset_s, stale = state.stale_symbols;
    figure("feed", silent ? "silent" : stale ? "catching up" : "live", "", [
      stale ? plural(stale, "stale symbol") : rate !== null && `${rate < 10 && rate ? rate.toFixed(1) : whole(rate)} messages/s`,
      offset !== null && `clock ${offset < 0 ? "−" : "+"}${millis(Math.abs(offset * 1000))} ms`,
      plural(state.reconnects, "reconnection"),
    ], silent || stale > 0);
    figure("broker", state.broker_connected ? "connected" : "away", "", [
      `${whole(state.published + state.late)} published`, `${whole(state.late)} late`, `${whole(state.dropped)} dropped`,
    ], !state.broker_connected);
    const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ-(\w+)$/.exec(state.model);
    figure("model", parts ? parts[6] : state.model, "", [
      parts && `${parts[1]}-${parts[2]}-${parts[3]}`, parts && `${parts[4]}:${parts[5]} UTC`,
      state.history_failing ? "history cannot be written" : "",
    ]);
    $("model").title = state.model;
  };

  const paintFocus = () => {
    const row = rows.get(chosen);
    if (!row) return;
    const alive = valid(row);
    flag($("focus"), "none", !alive);
    say($("name"), row.symbol);
    say($("last"), price(row.close));
    say($("next"), price(row.predicted));
    say($("change"), row.predicted === null ? "" : percent(change(row)));
    const until = row.predicted === null ? "No forecast yet"
      : alive ? `valid for ${age(row.valid_until_ms - now() + 999)}` : `No forecast since ${time(row.valid_until_ms)}`;
    say($("until"), until);
    if (!row.series) return;
    const count = $("chart").clientWidth < 560 ? 48 : 96;
    const at = Chart.draw($("chart"), row.series, { count, ended: !alive, at: pointed });
    $("chart").setAttribute("aria-label", `${row.symbol}: the last ${at.candles.length} candles with their forecasts. ${until}.`);
    $("chart").layout = at;
    say($("reading"), reading(row));
  };

  const reading = (row) => {
    if (pointed === null) return legend(row);
    const { candles, forecasts, step } = row.series;
    const candle = candles.find((c) => c[0] === pointed), forecast = forecasts.get(pointed);
    const parts = [Chart.clock(pointed, step)];
    if (candle) parts.push(`open ${price(candle[1])}, high ${price(candle[2])}, low ${price(candle[3])}, close ${price(candle[4])}`);
    if (forecast) parts.push(`forecast ${price(forecast[1])}`);
    if (forecast && forecast[2] !== null) parts.push(`interval ${price(forecast[2])} to ${price(forecast[3])}`);
    return parts.join(" · ");
  };

  const legend = (row) =>
    `Hollow candles rose, filled ones fell. Blue: the forecast${row.lower === null ? "" : " with its interval; a ring marks a close outside it"}.`;

  // ---- hands -----------------------------------------------------------------------------------

  const heads = () => {
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

  // Once, the other way round, and back to the order of the configuration.
  const sortBy = (cell, key, first) => {
    const other = first === "ascending" ? "descending" : "ascending";
    const before = cell.getAttribute("aria-sort");
    const next = before === first ? other : before === other ? null : first;
    for (const head of $("heads").children) head.removeAttribute("aria-sort");
    if (next) cell.setAttribute("aria-sort", next);
    sort = { key: next && key, sign: next === "ascending" ? 1 : -1 };
    arrange();
    paintSoon();
  };

  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  const SIDEWAYS = { ArrowLeft: -1, ArrowRight: 1 };

  const walk = (event) => {
    if (event.key === "Enter") $("chart").focus();
    const by = STEPS[event.key];
    if (by === undefined) return;
    const elements = [...$("rows").children];
    if (!elements.length) return;
    const from = elements.findIndex((element) => element.dataset.symbol === chosen);
    const to = Math.min(elements.length - 1, Math.max(0, from + by));
    choose(elements[to].dataset.symbol);
    elements[to].focus();
    elements[to].scrollIntoView({ block: "nearest" });
    event.preventDefault();
  };

  const read = (event) => {
    const at = $("chart").layout;
    if (!at?.candles.length) return;
    const step = at.next - at.candles.at(-1)[0];
    pointed = Math.min(at.next, Math.max(at.candles[0][0], (pointed ?? at.next) + SIDEWAYS[event.key] * step));
    event.preventDefault();
    paintSoon();
  };

  const point = (event) => {
    const at = $("chart").layout;
    if (!at || !at.candles.length) return;
    const step = at.next - at.candles.at(-1)[0];
    const places = Math.floor((event.offsetX - at.x(at.candles[0][0])) / at.slot);
    pointed = Math.min(at.next, Math.max(at.candles[0][0], at.candles[0][0] + places * step));
    paintSoon();
  };

  const unpoint = () => { pointed = null; paintSoon(); };

  const typed = (event) => {
    const inField = event.target === $("filter");
    if (event.key === "/" && !inField && !event.ctrlKey && !event.metaKey) {
      $("filter").focus();
      $("filter").select();
      event.preventDefault();
    } else if (event.key === "Escape" && inField && $("filter").value) {
      $("filter").value = "";
      arrange();
      event.preventDefault();
    } else if (event.key === "Escape" && event.target === $("chart")) {
      rows.get(chosen)?.element.focus();
    } else if (event.target === $("chart") && SIDEWAYS[event.key]) {
      read(event);
    } else if (["ArrowUp", "ArrowDown"].includes(event.key) || event.target.closest?.("#rows")) {
      walk(event);
    }
  };

  heads();
  document.addEventListener("keydown", typed);
  $("filter").addEventListener("input", () => { arrange(); paintSoon(); });
  $("rows").addEventListener("click", (event) => {
    const element = event.target.closest("[data-symbol]");
    if (!element) return;
    choose(element.dataset.symbol);
    $("chart").scrollIntoView({ block: "nearest" });
  });
  $("chart").addEventListener("pointermove", point);
  $("chart").addEventListener("pointerdown", point);
  $("chart").addEventListener("pointerleave", unpoint);
  $("chart").addEventListener("blur", unpoint);
  const repaint = () => { for (const row of rows.values()) row.dirty = true; paintSoon(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("resize", repaint);

  // What time alone changes: forecasts expire, connections fall silent, sorted rows move.
  setInterval(() => {
    if (source && Date.now() - heard > SILENT_MS) lose();
    const busy = $("grid").matches(":hover, :focus-within");
    if (sort.key && !busy && Date.now() - sorted > RESORT_MS) arrange();
    if (!document.hidden) paintSoon();
  }, 250);
  connect();
})();
