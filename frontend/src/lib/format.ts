/** Numbers and times as text: SI units, three digits, "–" where nobody knows. */

export const NOTHING = '–';

const PREFIXES = ['', 'k', 'M', 'G', 'T', 'P', 'E'];

type Known = number | null | undefined;

/** Three digits and the unit with its prefix; null and NaN are "not known", never 0. */
function scaled(value: Known, unit: string): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  let left = value;
  let at = 0;
  // 999.5 would be written as 1000.
  for (; left >= 999.5 && at < PREFIXES.length - 1; at += 1) left /= 1000;
  const digits = at === 0 || left >= 99.95 ? 0 : left >= 9.995 ? 1 : 2;
  const name = `${PREFIXES[at] ?? ''}${unit}`;
  return name ? `${left.toFixed(digits)} ${name}` : left.toFixed(digits);
}

/** A number of bytes, such as "4.56 MB". */
export function bytes(value: Known): string {
  return scaled(value, 'B');
}

/** Bytes per second in bytes or bits, without "per second": "4.56 MB", "36.5 Mbit". */
export function rate(value: Known, bits: boolean): string {
  return bits ? scaled(value === null || value === undefined ? value : value * 8, 'bit') : scaled(value, 'B');
}

/** Bytes per second, written out: "4.56 MB/s". */
export function perSecond(value: Known, bits: boolean): string {
  const text = rate(value, bits);
  return text === NOTHING ? text : `${text}/s`;
}

/** A count of things, such as "1.25 k". */
export function count(value: Known): string {
  return scaled(value, '');
}

const thousands = new Intl.NumberFormat('en-US');

/** A whole number with its thousands kept apart. */
export function whole(value: number): string {
  return Number.isNaN(value) ? NOTHING : thousands.format(value);
}

/** A part of a whole: "<1 %" is not nothing, and 99.6 is not all. */
export function percent(part: Known, all: Known): string {
  if (part === null || part === undefined || !all || Number.isNaN(part) || Number.isNaN(all)) return NOTHING;
  const value = (100 * part) / all;
  if (value > 0 && value < 1) return '<1 %';
  if (value > 99 && value < 100) return '>99 %';
  return `${value.toFixed(0)} %`;
}

/** Hours, minutes and seconds of the viewer's day. */
export function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString('en-GB');
}

/** A time with its day, as the viewer's clock has it. */
export function moment(seconds: Known): string {
  if (!seconds) return NOTHING;
  const at = new Date(seconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(seconds)}`;
}

/** How long something took: "8 s", "3 min 20 s", "2 h 5 min", "4 d 3 h". */
export function lasting(seconds: number): string {
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return `${left} s`;
  if (left < 3600) return `${Math.floor(left / 60)} min${left % 60 ? ` ${left % 60} s` : ''}`;
  if (left < 86_400) {
    const minutes = Math.floor((left % 3600) / 60);
    return `${Math.floor(left / 3600)} h${minutes ? ` ${minutes} min` : ''}`;
  }
  const hours = Math.floor((left % 86_400) / 3600);
  return `${Math.floor(left / 86_400)} d${hours ? ` ${hours} h` : ''}`;
}

/** How long ago a time was, coarse enough to read while it runs. */
export function ago(seconds: Known, now: number): string {
  if (!seconds) return NOTHING;
  const passed = Math.max(0, now - seconds);
  if (passed < 60) return `${Math.floor(passed)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86_400) return `${Math.floor(passed / 3600)} h ago`;
  return `${Math.floor(passed / 86_400)} d ago`;
}
