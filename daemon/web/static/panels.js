// Paint the headline, the five figures and the large chart.

// Rows show an expired forecast at once; the headline waits this long for the next one.
const GRACE_MS = 500;

const paintLink = () => {
  setText($("link-text"), link === "lost" ? "disconnected, trying again" : link);
  if (link === "lost" && state) {
    setText($("headline"), `Disconnected. The figures are from ${time(state.now_ms)}.`);
    setClass($("headline"), "trouble", true);
  } else if (link === "lost") {
    setText($("headline"), "The daemon does not answer.");
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
    : `${formatInteger(without)} of ${plural(list.length, "symbol")} ${without === 1 ? "has" : "have"} no forecast.`;
  setText($("headline"), text);
  setClass($("headline"), "trouble", without > 0 || !state.broker_connected);
  setText($("where"), `${state.exchange} · ${state.timeframe} · ${state.instance}`);
};

const figure = (id, value, unit, lines, trouble = false) => {
  const element = $(id);
  if (element.dataset.shown !== `${value} ${unit}`) {
    element.dataset.shown = `${value} ${unit}`;
    const small = document.createElement("small");
    small.textContent = unit;
    element.replaceChildren(value, small);
  }
  setClass(element, "trouble", trouble);
  const note = $(`${id}-note`), shown = lines.filter(Boolean);
  if (note.dataset.shown === shown.join("\n")) return;
  note.dataset.shown = shown.join("\n");
  note.replaceChildren(...shown.map((text) => {
    const line = document.createElement("span");
    line.textContent = text;
    return line;
  }));
};

const paintFigures = (list) => {
  paintSkill();
  const ready = list.filter((row) => row.ready_ms !== null).map((row) => row.ready_ms).sort((a, b) => a - b);
  const budget = state.budget_s * 1000, slowest = ready.at(-1) ?? 0;
  figure("latency", ready.length ? milliseconds(ready[ready.length >> 1]) : "–", ready.length ? " ms" : "", [
    ready.length > 1 && `slowest ${milliseconds(slowest)} ms`,
    state.p99_below_s !== null && `99 % below ${milliseconds(state.p99_below_s * 1000)} ms`,
    `budget ${milliseconds(budget)} ms`,
  ], slowest > budget);
  paintConnections();
};

const paintSkill = () => {
  const { mae_ratio: ratio, mae_ratio_stderr: stderr } = state;
  const share = (value, text) => value !== null && `${(100 * value).toFixed(0)} % ${text}`;
  if (ratio === null) { figure("skill", "–", "", ["not enough scored forecasts yet"]); return; }
  const verdict = ratio + 2 * stderr < 1 ? "better than the last value"
    : ratio - 2 * stderr > 1 ? "worse than the last value" : "no different from the last value";
  figure("skill", ratio.toFixed(3), ` ±${stderr.toFixed(3)}`, [
    verdict, share(state.direction, "of directions correct"), share(state.coverage, "inside the interval"),
  ]);
};

const paintConnections = () => {
  const silenceMs = now() - lastCandleMs, isSilent = silenceMs > Math.max(15000, state.step_ms / 2);
  const offset = state.clock_offset_s, stale = state.stale_symbols;
  figure("feed", isSilent ? "silent" : stale ? "catching up" : "live", "", [
    stale ? plural(stale, "stale symbol") : rate !== null && `${rate < 10 && rate ? rate.toFixed(1) : formatInteger(rate)} messages/s`,
    offset !== null && `clock ${offset < 0 ? "−" : "+"}${milliseconds(Math.abs(offset * 1000))} ms`,
    plural(state.reconnects, "reconnection"),
  ], isSilent || stale > 0);
  figure("broker", state.broker_connected ? "connected" : "disconnected", "", [
    `${formatInteger(state.published + state.late)} published`, `${formatInteger(state.late)} late`, `${formatInteger(state.dropped)} dropped`,
  ], !state.broker_connected);
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ-(\w+)$/.exec(state.model);
  figure("model", parts ? parts[6] : state.model, "", [
    parts && `${parts[1]}-${parts[2]}-${parts[3]}`, parts && `${parts[4]}:${parts[5]} UTC`,
    state.history_failing ? "history cannot be written" : "",
  ]);
  $("model").title = state.model;
};

const paintFocus = () => {
  const row = rows.get(selected);
  if (!row) return;
  const isValid = hasValidForecast(row);
  setClass($("focus"), "none", !isValid);
  setText($("name"), row.symbol);
  setText($("last"), price(row.close));
  setText($("next"), price(row.predicted));
  setText($("change"), row.predicted === null ? "" : percent(change(row)));
  const until = row.predicted === null ? "No forecast yet"
    : isValid ? `valid for ${age(row.valid_until_ms - now() + 999)}` : `No forecast since ${time(row.valid_until_ms)}`;
  setText($("until"), until);
  if (!row.series) return;
  const count = $("chart").clientWidth < 560 ? 48 : 96;
  const at = Chart.draw($("chart"), row.series, { count, expired: !isValid, cursorMs });
  $("chart").setAttribute("aria-label", `${row.symbol}: the last ${at.candles.length} candles with their forecasts. ${until}.`);
  $("chart").layout = at;
  setText($("reading"), describeCursor(row));
};

const describeCursor = (row) => {
  if (cursorMs === null) return legend(row);
  const { candles, forecasts, step } = row.series;
  const candle = candles.find((c) => c[0] === cursorMs), forecast = forecasts.get(cursorMs);
  const parts = [Chart.clock(cursorMs, step)];
  if (candle) parts.push(`open ${price(candle[1])}, high ${price(candle[2])}, low ${price(candle[3])}, close ${price(candle[4])}`);
  if (forecast) parts.push(`forecast ${price(forecast[1])}`);
  if (forecast && forecast[2] !== null) parts.push(`interval ${price(forecast[2])} to ${price(forecast[3])}`);
  return parts.join(" · ");
};

const legend = (row) =>
  `Hollow candles rose, filled ones fell. Blue: the forecast${row.lower === null ? "" : " with its interval; a ring marks a close outside it"}.`;
