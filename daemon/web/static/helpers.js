// Find and change elements, and format numbers, prices and times.

const $ = (id) => document.getElementById(id);
const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const setClass = (element, name, on) => { if (element.classList.contains(name) !== on) element.classList.toggle(name, on); };

const formatInteger = (number) => Math.round(number).toLocaleString("en-US");
const plural = (n, one) => `${formatInteger(n)} ${one}${n === 1 ? "" : "s"}`;

const price = (value) => {
  if (value === null) return "–";
  // Other prices are written with an exponent, because their digits would not fit.
  if (!(value >= 1e-6 && value < 1e15)) return value.toExponential(5);
  const before = Math.floor(Math.log10(value)) + 1;
  const digits = Math.max(0, (before > 0 ? 7 : 6) - before);
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const percent = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value * 100).toFixed(3)} %`;
const milliseconds = (value) => (value >= 100 ? formatInteger(value) : value.toPrecision(2));
const age = (ms) => {
  const s = Math.floor(ms / 1000);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
};
const time = (ms) => new Date(ms).toTimeString().slice(0, 8);
