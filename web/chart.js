// A small candle chart: green and hollow up, red and filled down, the scale at the right.

const SVG = "http://www.w3.org/2000/svg";
const SCALE = 62;
const MARGIN = 12;

/** candles: [{start, open, high, low, close}] with numbers, oldest first, one per `period` seconds up to `end`. */
export function draw(svg, candles, end, count, period, decimals) {
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!candles.length || !width) return;

  const high = Math.max(...candles.map((candle) => candle.high));
  const low = Math.min(...candles.map((candle) => candle.low));
  const span = high - low || high * 0.001 || 1;
  const y = (price) => MARGIN + ((high - price) / span) * (height - 2 * MARGIN);
  const step = (width - SCALE) / count;
  const body = Math.max(1, Math.min(9, step * 0.66));

  for (let line = 0; line < 4; line++) {
    const price = high - (span * line) / 3;
    add(svg, "line", { class: "rule", x1: 0, x2: width - SCALE + 4, y1: y(price), y2: y(price) });
    add(svg, "text", { class: "scale", x: width - SCALE + 10, y: y(price) + 4 }).textContent = price.toFixed(decimals);
  }
  for (const candle of candles) {
    const x = (count - (end - candle.start) / period + 0.5) * step;
    if (x < 0) continue;
    const side = candle.close >= candle.open ? "up" : "down";
    const top = y(Math.max(candle.open, candle.close));
    const bottom = y(Math.min(candle.open, candle.close));
    add(svg, "line", { class: side, x1: x, x2: x, y1: y(candle.high), y2: top });
    add(svg, "line", { class: side, x1: x, x2: x, y1: bottom, y2: y(candle.low) });
    add(svg, "rect", { class: side, x: x - body / 2, width: body, y: top, height: Math.max(1, bottom - top) });
  }
}

function add(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}
