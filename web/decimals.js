// Exact decimals: the exchange's decimal strings as whole numbers of units, and back. No floats near money.

export function places(text) {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

/** "1.5", 3 → 1500n; digits beyond `decimals` would be lost and are an error. */
export function units(text, decimals) {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = (negative ? text.slice(1) : text).split(".");
  if (/[^0]/.test(fraction.slice(decimals))) throw new RangeError(`${text} has more than ${decimals} decimals`);
  const value = BigInt(whole + fraction.slice(0, decimals).padEnd(decimals, "0"));
  return negative ? -value : value;
}

/** 1500n, 3 → "1.500" */
export function padded(value, decimals) {
  const negative = value < 0n;
  const digits = (negative ? -value : value).toString().padStart(decimals + 1, "0");
  const text = decimals ? `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}` : digits;
  return negative ? `-${text}` : text;
}

/** "1234567.5" → "1,234,567.5" */
export function grouped(text) {
  const [whole, fraction] = text.split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? spaced : `${spaced}.${fraction}`;
}
