// Numbers, durations and shares as people read them; the same words as the report's.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (n) => whole.format(n);

export function hours(seconds) {
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  return `${seconds / 3600 < 100 ? (seconds / 3600).toFixed(1) : whole.format(seconds / 3600)} h`;
}

export function share(part, of = 1) {
  if (part === null || part === undefined || !of) return "–";
  const percent = (100 * part) / of;
  return `${percent === 0 || percent >= 1 ? percent.toFixed(percent >= 99.95 ? 0 : 1) : percent.toPrecision(2)} %`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Math.abs(value) >= 10 ** (digits - 1)) return whole.format(value);
  return String(Number(value.toPrecision(digits)));
}

export const change = (now, before) => {
  const by = now - before;
  return by === 0 ? "as published" : `${by > 0 ? "+" : "−"}${count(Math.abs(by))}`;
};

export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor((tenths % 600) / 10)).padStart(2, "0")}.${tenths % 10}`;
}

export const file = (uri) => (uri ?? "").split("/").pop();
export const sign = (compare) => ({ ">=": "≥", "<=": "≤" })[compare] ?? compare;
export const words = (name) => name.replaceAll("_", " ");
