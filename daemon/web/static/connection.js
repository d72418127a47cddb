// Receive the daemon's events, and request the series of rows whose charts are visible.

const CHART_CANDLES = 120, MINI_CANDLES = 32;  // candles requested for the large and a small chart
const SERIES_BATCH = 32;  // symbols in one request
const MAX_SILENCE_MS = 5000;  // a connection without events for longer is lost
const RETRY_MS = 2000;

let source = null, link = "connecting", lastMessageMs = 0;
let pendingSymbols = new Set(), isFetching = false;

const connect = () => {
  const current = source = new EventSource("/events");
  lastMessageMs = Date.now();
  const on = (name, apply) => source.addEventListener(name, (message) => {
    if (current !== source) return;
    lastMessageMs = Date.now();
    apply(JSON.parse(message.data));
    setLink("live");
    schedulePaint();
  });
  on("all", applyAll);
  on("rows", (list) => list.forEach(applyRow));
  on("state", applyState);
  source.onerror = () => { if (current === source) onConnectionLost(); };
};

// Not left to EventSource: it gives up after a refusal and does not notice a dead connection.
const onConnectionLost = () => {
  source.close();
  source = null;
  setLink("lost");
  setTimeout(connect, RETRY_MS);
};

const setLink = (to) => {
  if (link === to) return;
  link = document.body.dataset.link = to;
  schedulePaint();
};

const requestSeries = (row) => { pendingSymbols.add(row.symbol); if (!isFetching) setTimeout(fetchSeries, 20); };

const fetchSeries = async () => {
  if (isFetching || !pendingSymbols.size || link === "lost") return;
  isFetching = true;
  const batch = pendingSymbols.has(selected) ? [selected] : [...pendingSymbols].slice(0, SERIES_BATCH);
  const limit = batch[0] === selected ? CHART_CANDLES : MINI_CANDLES;
  batch.forEach((symbol) => pendingSymbols.delete(symbol));
  try {
    const query = new URLSearchParams([["limit", limit], ...batch.map((symbol) => ["symbol", symbol])]);
    const response = await fetch(`/series?${query}`);
    if (!response.ok) throw new Error(`series: ${response.status}`);
    const series = await response.json();
    for (const symbol of batch) {
      const row = rows.get(symbol);
      if (row) setSeries(row, series[symbol], limit);
    }
  } catch {
    batch.forEach((symbol) => rows.has(symbol) && pendingSymbols.add(symbol));
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
  isFetching = false;
  schedulePaint();
  if (pendingSymbols.size) fetchSeries();
};

const setSeries = (row, { candles, forecasts }, depth) => {
  row.series = { step: state.step_ms, candles, forecasts: new Map(forecasts.map((f) => [f[0], f])), depth };
  row.dirty = true;
  if (row.predicted !== null) row.series.forecasts.set(row.target_ms, [row.target_ms, row.predicted, row.lower, row.upper]);
};
