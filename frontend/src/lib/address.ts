/** IP addresses as numbers, to tell whether one lies in a range. */

/** A range of addresses: the bits that count, and their value. */
export interface Range {
  version: 4 | 6;
  value: bigint;
  shift: bigint;
}

function four(text: string): bigint | null {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null;
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
}

function six(text: string): bigint | null {
  const halves = text.split('::');
  if (halves.length > 2 || !text.includes(':')) return null;
  const [head = [], tail = []] = halves.map((half) => (half ? half.split(':') : []));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...Array<string>(Math.max(0, missing)).fill('0'), ...tail];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

/** The range that `10.0.0.0/8` or `fd00::/8` names; null where the text is none. */
export function rangeOf(text: string): Range | null {
  const [address = '', length = '', more] = text.split('/');
  if (!/^\d{1,3}$/.test(length) || more !== undefined) return null;
  const version = address.includes(':') ? 6 : 4;
  const bits = version === 6 ? 128 : 32;
  const value = version === 6 ? six(address) : four(address);
  if (value === null || Number(length) > bits) return null;
  const shift = BigInt(bits - Number(length));
  return { version, value: value >> shift, shift };
}

/** Whether an address lies in a range. */
export function inRange(text: string, range: Range): boolean {
  const value = range.version === 6 ? six(text) : four(text);
  return value !== null && value >> range.shift === range.value;
}
