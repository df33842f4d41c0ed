/** Which rows are shown, and in which order. */

import { FIELDS, type Field } from './columns';
import type { Numbers, Pod } from './rows';

export const TEXTS = ['name', 'ns', 'node', 'owner'] as const;
export type Text = (typeof TEXTS)[number];
export type SortKey = Field | Text;

export interface Sort {
  by: SortKey;
  /** The largest first, Z before A. */
  down: boolean;
}

/** Whether a key sorts by text. */
export function isText(key: SortKey): key is Text {
  return (TEXTS as readonly string[]).includes(key);
}

/** A sort key by its name; null where there is none of that name. */
export function sortKey(name: string): SortKey | null {
  return [...FIELDS, ...TEXTS].find((one) => one === name) ?? null;
}

const collator = new Intl.Collator('en', { numeric: true });

/** Slots of the pods that fit, in order; what is not known comes last, equals stay where they were. */
export function ordered(
  pods: readonly (Pod | null)[],
  fits: (pod: Pod) => boolean,
  numbers: Numbers,
  sort: Sort,
): number[] {
  const slots: number[] = [];
  pods.forEach((pod, slot) => {
    if (pod && fits(pod)) slots.push(slot);
  });
  const sign = sort.down ? -1 : 1;
  const { by } = sort;
  if (isText(by)) {
    const id = (slot: number): number => pods[slot]?.id ?? 0;
    const text = (slot: number): string => pods[slot]?.[by] ?? '';
    return slots.sort((a, b) => sign * collator.compare(text(a), text(b)) || id(a) - id(b));
  }
  const column = numbers[by];
  const columns = [0, 1, 2].map(() => new Float64Array(pods.length)) as [Float64Array, Float64Array, Float64Array];
  const [worth, total, id] = columns;
  for (const slot of slots) {
    const value = column[slot] as number;
    // Zero has one sign only: + 0 makes it of -0.
    worth[slot] = Number.isNaN(value) ? Number.MAX_VALUE : sign * value + 0;
    total[slot] = -(numbers.total[slot] as number) || 0;
    id[slot] = pods[slot]?.id ?? 0;
  }
  return sorted(slots, columns);
}

/**
 * Slots by the first of `columns`, equals by the next one, the least first; no value is NaN or infinite.
 *
 * Asking a function sixty thousand times which of two comes first is most of what a message costs. Plain numbers are
 * sorted ten times as fast: so each carries its place in its lower half, and where upper halves are equal it is asked.
 */
function sorted(slots: number[], columns: readonly Float64Array[]): number[] {
  const [worth, ...others] = columns;
  if (!worth || slots.length < 2) return slots;
  const keys = new Float64Array(slots.length);
  const halves = new Uint32Array(keys.buffer);
  slots.forEach((slot, at) => {
    keys[at] = worth[slot] as number;
    halves[2 * at] = at;
  });
  keys.sort();
  const found = slots.map((_, at) => slots[halves[2 * at] as number] as number);
  for (let from = 0, to = 1; from < found.length; from = to, to += 1) {
    while (to < found.length && halves[2 * to + 1] === halves[2 * from + 1]) to += 1;
    if (to - from === 1) continue;
    const alike = found.slice(from, to);
    const equal = alike.every((slot) => worth[slot] === worth[alike[0] as number]);
    const right = equal ? sorted(alike, others) : alike.sort((a, b) => compared(columns, a, b));
    right.forEach((slot, at) => (found[from + at] = slot));
  }
  return found;
}

function compared(columns: readonly Float64Array[], a: number, b: number): number {
  for (const column of columns) {
    const [one, other] = [column[a] as number, column[b] as number];
    if (one !== other) return one < other ? -1 : 1;
  }
  return 0;
}

/** The rows `now` in the order that they had `before`; new ones come last. */
export function held(now: number[], before: readonly number[]): number[] {
  const wanted = new Set(now);
  const kept = before.filter((slot) => wanted.delete(slot));
  return [...kept, ...now.filter((slot) => wanted.has(slot))];
}
