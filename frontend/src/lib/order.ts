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
  const id = (slot: number): number => pods[slot]?.id ?? 0;
  const sign = sort.down ? -1 : 1;
  const { by } = sort;
  if (isText(by)) {
    const text = (slot: number): string => pods[slot]?.[by] ?? '';
    return slots.sort((a, b) => sign * collator.compare(text(a), text(b)) || id(a) - id(b));
  }
  const column = numbers[by];
  const total = numbers.total;
  // Compared some sixty thousand times a second: what is not known is made the last once, and not each time.
  const worth = new Float64Array(pods.length);
  for (const slot of slots) {
    const value = column[slot] as number;
    worth[slot] = Number.isNaN(value) ? Infinity : sign * value;
  }
  return slots.sort((a, b) => {
    const [one, other] = [worth[a] as number, worth[b] as number];
    if (one !== other) return one < other ? -1 : 1;
    return (total[b] as number) - (total[a] as number) || id(a) - id(b);
  });
}

/** The rows `now` in the order that they had `before`; new ones come last. */
export function held(now: number[], before: readonly number[]): number[] {
  const wanted = new Set(now);
  const kept = before.filter((slot) => wanted.delete(slot));
  return [...kept, ...now.filter((slot) => wanted.has(slot))];
}
