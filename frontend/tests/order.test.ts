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
