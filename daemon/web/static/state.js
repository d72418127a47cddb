// Keep the daemon's rows and state, and apply its events to them.

const MAX_CANDLES = 240;  // of a series

const rows = new Map();  // symbol → {…fields, element, cells, series, visible}
let fields = [];  // names of a row's values
let order = [];  // symbols in the order of the configuration
let state = null;  // the newest state event
let clockOffsetMs = 0;  // the exchange's clock minus the browser's
let lastCandleMs = null;  // when the count of candle updates last rose, the exchange's time
let rate = null;  // candle updates a second
let selected = null;  // symbol whose chart is shown
let cursorMs = null;  // candle under the cursor, by its opening
let sort = { key: null, sign: 1 };

const now = () => Date.now() + clockOffsetMs;
const hasValidForecast = (row) => row.predicted !== null && now() < row.valid_until_ms;
const change = (row) => row.predicted / row.last - 1;

const applyAll = ({ fields: names, rows: list }) => {
  fields = names;
  const present = new Set(list.map((values) => values[0]));
  for (const [symbol, row] of rows) {
    if (!present.has(symbol)) { row.element.remove(); rows.delete(symbol); }
  }
  for (const row of rows.values()) row.series = null;
  list.forEach(applyRow);
  order = list.map((values) => values[0]);
  if (!rows.has(selected)) select(order[0] ?? null);
  arrangeRows();
  for (const row of rows.values()) if (row.visible || row.symbol === selected) requestSeries(row);
};

const applyRow = (values) => {
  const symbol = values[0];
  let row = rows.get(symbol);
  if (!row) {
    row = { symbol, series: null, visible: false };
    rows.set(symbol, row);
    buildRow(row);
  }
  fields.forEach((name, i) => { row[name] = values[i]; });
  row.dirty = true;
  if (row.series) extendSeries(row);
};

// Append a row's candle and forecast to its series; request the series again after a gap.
const extendSeries = (row) => {
  const { candles, forecasts, step } = row.series;
  const newest = candles.at(-1)?.[0] ?? -Infinity;
  const candle = [row.open_ms, row.open, row.high, row.low, row.close];
  if (row.open_ms === newest + step) candles.push(candle);
  else if (row.open_ms === newest) candles[candles.length - 1] = candle;
  else { row.series = null; requestSeries(row); return; }
  if (row.predicted !== null) forecasts.set(row.target_ms, [row.target_ms, row.predicted, row.lower, row.upper]);
  while (candles.length > MAX_CANDLES) forecasts.delete(candles.shift()[0]);
};

const applyState = (update) => {
  if (state) {
    const elapsedS = (update.now_ms - state.now_ms) / 1000;
    if (elapsedS > 0) rate = (update.messages - state.messages) / elapsedS;
  }
  if (!state || update.messages !== state.messages) lastCandleMs = update.now_ms;
  state = update;
  clockOffsetMs = update.now_ms - Date.now();
};
