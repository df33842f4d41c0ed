import { expect, test } from 'vitest';
import { held, ordered, type SortKey } from '../src/lib/order';
import { Traffic } from '../src/lib/traffic';
import { snapshot } from './messages';

const traffic = new Traffic();
traffic.take(
  snapshot([
    { id: 1, name: 'b-10', numbers: { tx: 5, rx: 0, total: 1 } },
    { id: 2, name: 'b-9', numbers: { tx: null, rx: null, total: 100 } },
    { id: 3, name: 'a', numbers: { tx: 9, rx: 1, total: 2 } },
    { id: 4, name: 'c', numbers: { tx: 5, rx: 0, total: 7 } },
  ]),
);
const { pods, numbers } = traffic.rows;

test.each<[SortKey, boolean, string[]]>([
  ['rate', true, ['a', 'c', 'b-10', 'b-9']],
  ['rate', false, ['c', 'b-10', 'a', 'b-9']],
  ['total', true, ['b-9', 'c', 'a', 'b-10']],
  ['name', false, ['a', 'b-9', 'b-10', 'c']],
  ['name', true, ['c', 'b-10', 'b-9', 'a']],
])('by %s, down %s', (by, down, names) => {
  const slots = ordered(pods, () => true, numbers, { by, down });
  expect(slots.map((slot) => pods[slot]?.name)).toEqual(names);
});

test('only what fits is there', () => {
  const slots = ordered(pods, (pod) => pod.name === 'c', numbers, { by: 'rate', down: true });
  expect(slots.map((slot) => pods[slot]?.name)).toEqual(['c']);
});

test('a held order keeps its places: what went leaves, what came is last', () => {
  expect(held([4, 3, 2, 9], [1, 2, 3, 4])).toEqual([2, 3, 4, 9]);
});

test('thousands are in the order that comparing each with each gives: equals, almost equals, what is not known', () => {
  let seed = 1;
  const random = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const drawn = [
    () => null,
    () => 0,
    () => Math.round(random() * 3),
    () => 1e12 + Math.round(random() * 200),
    () => Math.round(10 ** (random() * 12)),
  ];
  const number = (): number | null => drawn[Math.floor(random() * drawn.length)]?.() ?? null;
  const many = new Traffic();
  many.take(
    snapshot(
      Array.from({ length: 3000 }, (_, at) => {
        const tx = number();
        return { id: ((at * 7919) % 3000) + 1, numbers: { tx, rx: tx === null ? null : 0, total: number() } };
      }),
    ),
  );
  const { rows } = many;
  for (const down of [true, false]) {
    const sign = down ? -1 : 1;
    const worth = (slot: number): number => {
      const rate = rows.numbers.rate[slot] ?? Number.NaN;
      return Number.isNaN(rate) ? Number.MAX_VALUE : sign * rate;
    };
    const total = (slot: number): number => rows.numbers.total[slot] || 0;
    const id = (slot: number): number => rows.pods[slot]?.id ?? 0;
    const wanted = rows.pods.map((_, slot) => slot);
    wanted.sort((a, b) => worth(a) - worth(b) || total(b) - total(a) || id(a) - id(b));
    expect(ordered(rows.pods, () => true, rows.numbers, { by: 'rate', down })).toEqual(wanted);
  }
});
