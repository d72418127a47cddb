// Schedule painting, handle input and start the page.

let isPaintScheduled = false;
const schedulePaint = () => {
  if (isPaintScheduled) return;
  isPaintScheduled = true;
  requestAnimationFrame(() => { isPaintScheduled = false; paint(); });
};

const paint = () => {
  paintLink();
  if (!state || !rows.size) return;
  $("focus").hidden = $("symbols").hidden = false;
  $("tools").hidden = rows.size === 1;
  const list = [...rows.values()];
  paintHeadline(list);
  paintFigures(list);
  for (const row of list) if (row.visible) paintRow(row);
  paintFocus();
};

const ROW_STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
const CURSOR_STEPS = { ArrowLeft: -1, ArrowRight: 1 };

const moveSelection = (event) => {
  if (event.key === "Enter") $("chart").focus();
  const by = ROW_STEPS[event.key];
  if (by === undefined) return;
  const elements = [...$("rows").children];
  if (!elements.length) return;
  const from = elements.findIndex((element) => element.dataset.symbol === selected);
  const to = Math.min(elements.length - 1, Math.max(0, from + by));
  select(elements[to].dataset.symbol);
  elements[to].focus();
  elements[to].scrollIntoView({ block: "nearest" });
  event.preventDefault();
};

const moveCursor = (event) => {
  const at = $("chart").layout;
  if (!at?.candles.length) return;
  const step = at.next - at.candles.at(-1)[0];
  cursorMs = Math.min(at.next, Math.max(at.candles[0][0], (cursorMs ?? at.next) + CURSOR_STEPS[event.key] * step));
  event.preventDefault();
  schedulePaint();
};

const onPointerMove = (event) => {
  const at = $("chart").layout;
  if (!at || !at.candles.length) return;
  const step = at.next - at.candles.at(-1)[0];
  const places = Math.floor((event.offsetX - at.x(at.candles[0][0])) / at.slot);
  cursorMs = Math.min(at.next, Math.max(at.candles[0][0], at.candles[0][0] + places * step));
  schedulePaint();
};

const clearCursor = () => { cursorMs = null; schedulePaint(); };

const onKeyDown = (event) => {
  const inField = event.target === $("filter");
  if (event.key === "/" && !inField && !event.ctrlKey && !event.metaKey) {
    $("filter").focus();
    $("filter").select();
    event.preventDefault();
  } else if (event.key === "Escape" && inField && $("filter").value) {
    $("filter").value = "";
    arrangeRows();
    event.preventDefault();
  } else if (event.key === "Escape" && event.target === $("chart")) {
    rows.get(selected)?.element.focus();
  } else if (event.target === $("chart") && CURSOR_STEPS[event.key]) {
    moveCursor(event);
  } else if (["ArrowUp", "ArrowDown"].includes(event.key) || event.target.closest?.("#rows")) {
    moveSelection(event);
  }
};

buildHeader();
document.addEventListener("keydown", onKeyDown);
$("filter").addEventListener("input", () => { arrangeRows(); schedulePaint(); });
$("rows").addEventListener("click", (event) => {
  const element = event.target.closest("[data-symbol]");
  if (!element) return;
  select(element.dataset.symbol);
  $("chart").scrollIntoView({ block: "nearest" });
});
$("chart").addEventListener("pointermove", onPointerMove);
$("chart").addEventListener("pointerdown", onPointerMove);
$("chart").addEventListener("pointerleave", clearCursor);
$("chart").addEventListener("blur", clearCursor);
const repaint = () => { for (const row of rows.values()) row.dirty = true; schedulePaint(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("resize", repaint);

// Changes without an event: forecasts expire, connections become silent, sorted rows move.
setInterval(() => {
  if (source && Date.now() - lastMessageMs > MAX_SILENCE_MS) onConnectionLost();
  const busy = $("grid").matches(":hover, :focus-within");
  if (sort.key && !busy && Date.now() - sortedMs > RESORT_INTERVAL_MS) arrangeRows();
  if (!document.hidden) schedulePaint();
}, 250);
connect();
