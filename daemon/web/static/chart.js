// Draw candles with their forecasts on a canvas. Rising candles are hollow, falling ones filled;
// colour marks forecasts.

const Chart = (() => {
  const RIGHT = 78, BOTTOM = 22, TOP = 8;
  const AHEAD = 2;  // Width of the next candle's slot, in candles.

  const palette = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  };

  const prepareCanvas = (canvas) => {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height };
  };

  const span = (candles, known) => {
    let low = Infinity, high = -Infinity;
    for (const [, , top, bottom] of candles) { low = Math.min(low, bottom); high = Math.max(high, top); }
    for (const [, predicted, lower, upper] of known) {
      low = Math.min(low, lower ?? predicted); high = Math.max(high, upper ?? predicted);
    }
    const room = (high - low || high * 1e-4 || 1) * 0.05;
    return [low - room, high + room];
  };

  const ticks = (low, high, wanted) => {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
    const values = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) values.push(at * step);
    return { values, label: (value) => label(value, Math.floor(Math.log10(step) + 1e-9)) };
  };

  // A price with its digits down to 10 ** power; very small and large ones with an exponent.
  const label = (value, power) => {
    const size = Math.abs(value);
    const digits = Math.max(0, -power);
    if (size < 1e15 && (size >= 1e-4 || digits <= 8)) {
      return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    }
    return value.toExponential(Math.min(20, Math.max(0, Math.floor(Math.log10(size)) - power)));
  };

  // The geometry of one drawing: where a candle and a price are.
  const layout = (series, box, count, mini) => {
    const candles = series.candles.slice(-count);
    const next = candles.length ? candles.at(-1)[0] + series.step : 0;
    const from = candles.length ? candles[0][0] : 0;
    const first = mini ? next : from;
    const known = [...series.forecasts.values()].filter((f) => f[0] >= first && f[0] <= next);
    const [low, high] = span(candles, known);
    const left = mini ? 1 : 0, right = box.width - (mini ? 1 : RIGHT);
    const top = mini ? 2 : TOP, bottom = box.height - (mini ? 2 : BOTTOM);
    const slot = (right - left) / (count + AHEAD);
    const start = right - slot * (candles.length + AHEAD);
    return {
      candles, known, low, high, left, right, top, bottom, slot, next, ahead: slot * AHEAD,
      x: (open) => start + slot * ((open - from) / series.step),
      y: (price) => bottom - (price - low) / (high - low) * (bottom - top),
    };
  };

  const drawForecasts = (pen, at, ink, expired) => {
    for (const [open, predicted, lower, upper] of at.known) {
      if (open === at.next && expired) continue;
      const x = at.x(open), wide = open === at.next ? at.ahead : at.slot;
      if (lower !== null) {
        pen.fillStyle = ink("band");
        pen.fillRect(x, at.y(upper), wide, Math.max(1, at.y(lower) - at.y(upper)));
      }
      pen.fillStyle = ink("accent");
      pen.fillRect(x + wide * 0.06, at.y(predicted) - 0.75, wide * 0.88, 1.5);
    }
  };

  const drawCandles = (pen, at, ink) => {
    const wide = Math.max(1, Math.min(11, Math.round(at.slot * 0.62)));
    pen.strokeStyle = pen.fillStyle = ink("candle");
    pen.lineWidth = 1;
    for (const [open, first, top, bottom, close] of at.candles) {
      const x = Math.round(at.x(open) + at.slot / 2 - wide / 2);
      const middle = x + wide / 2;
      const high = at.y(Math.max(first, close)), tall = Math.max(1, at.y(Math.min(first, close)) - high);
      pen.beginPath();
      pen.moveTo(middle, at.y(top)); pen.lineTo(middle, high);
      pen.moveTo(middle, high + tall); pen.lineTo(middle, at.y(bottom));
      pen.stroke();
      if (close >= first && wide > 2 && tall > 2) pen.strokeRect(x + 0.5, high + 0.5, wide - 1, tall - 1);
      else pen.fillRect(x, high, wide, tall);
    }
  };

  // A ring where a close fell outside its interval.
  const drawMisses = (pen, at, forecasts, ink) => {
    pen.strokeStyle = ink("warn");
    pen.lineWidth = 1.5;
    for (const [open, , , , close] of at.candles) {
      const known = forecasts.get(open);
      if (!known || known[2] === null || (close >= known[2] && close <= known[3])) continue;
      pen.beginPath();
      pen.arc(at.x(open) + at.slot / 2, at.y(close), Math.max(3.5, Math.min(6, at.slot * 0.5)), 0, 7);
      pen.stroke();
    }
  };

  const nextForecast = (at) => at.known.find((f) => f[0] === at.next);

  const drawAxes = (pen, at, box, step, expired, ink) => {
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillStyle = ink("muted");
    pen.strokeStyle = ink("line");
    pen.lineWidth = 1;
    const { values, label: text } = ticks(at.low, at.high, Math.max(3, box.height / 70));
    pen.textBaseline = "middle"; pen.textAlign = "left";
    const tagged = expired ? NaN : at.y(nextForecast(at)?.[1] ?? NaN);
    for (const value of values) {
      const y = Math.round(at.y(value)) + 0.5;
      pen.beginPath(); pen.moveTo(at.left, y); pen.lineTo(at.right, y); pen.stroke();
      if (!(Math.abs(y - tagged) < 17)) pen.fillText(text(value), at.right + 8, y);
    }
    pen.textBaseline = "bottom"; pen.textAlign = "center";
    let free = -Infinity;
    const every = [1, 2, 5, 10, 15, 20, 30, 60].find((n) => n * at.slot >= 88) ?? 60;
    for (const [open] of at.candles) {
      if (Math.round(open / step) % every) continue;
      const x = at.x(open) + at.slot / 2, text = clock(open, step);
      const half = pen.measureText(text).width / 2;
      if (x - half < free || x - half < 0 || x + half > at.right) continue;
      pen.fillText(text, x, box.height - 2);
      free = x + half + 12;
    }
  };

  const clock = (ms, step) => {
    const date = new Date(ms);
    if (step >= 86400000) return date.toISOString().slice(5, 10);
    const text = date.toTimeString().slice(0, step < 60000 ? 8 : 5);
    return step >= 3600000 ? `${date.getDate()}. ${text}` : text;
  };

  // The slot of the next candle: its forecast, or "no forecast".
  const drawNext = (pen, at, expired, ink) => {
    const x = at.x(at.next);
    pen.setLineDash([2, 3]);
    pen.strokeStyle = ink(expired ? "warn" : "accent");
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x, at.top); pen.lineTo(x, at.bottom); pen.stroke();
    pen.setLineDash([]);
    if (!expired) { tag(pen, at, ink); return; }
    pen.save();
    pen.translate(x + at.ahead / 2, (at.top + at.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillStyle = ink("warn");
    pen.textAlign = "center"; pen.textBaseline = "middle";
    pen.fillText("no forecast", 0, 0);
    pen.restore();
  };

  const tag = (pen, at, ink) => {
    const forecast = nextForecast(at);
    if (!forecast) return;
    const text = ticks(at.low, at.high, 30).label(forecast[1]), y = at.y(forecast[1]);
    pen.font = `600 ${pen.font}`;
    pen.fillStyle = ink("accent");
    pen.textAlign = "left"; pen.textBaseline = "middle";
    pen.fillText(text, at.right + 8, y);
  };

  const drawCursor = (pen, at, open, ink) => {
    const x = Math.round(at.x(open) + at.slot / 2) + 0.5;
    pen.strokeStyle = ink("muted");
    pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x, at.top); pen.lineTo(x, at.bottom); pen.stroke();
  };

  // series: {step, candles: [[open ms, open, high, low, close]], forecasts: Map(open ms → [...])}
  const draw = (canvas, series, { count, mini = false, expired, cursorMs = null }) => {
    const box = prepareCanvas(canvas), ink = palette();
    const at = layout(series, box, count, mini);
    if (!at.candles.length) return at;
    if (!mini) drawAxes(box.pen, at, box, series.step, expired, ink);
    drawForecasts(box.pen, at, ink, expired);
    if (cursorMs !== null) drawCursor(box.pen, at, cursorMs, ink);
    drawCandles(box.pen, at, ink);
    if (!mini) { drawMisses(box.pen, at, series.forecasts, ink); drawNext(box.pen, at, expired, ink); }
    return at;
  };

  return { draw, clock };
})();

