import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { inRange, rangeOf } from '../src/lib/address';
import { matcher, NO_PORTS, parse, scopesOf, toggled, unknownFields, type Ports } from '../src/lib/filter';
import { SCOPE_NAMES } from '../src/lib/live-message';
import { Traffic } from '../src/lib/traffic';
import { snapshot, type Row } from './messages';

// The launcher's `top` is held against the same ones.
interface Shared {
  pods: (Omit<Row, 'id' | 'scopes'> & { scopes?: (typeof SCOPE_NAMES)[number][] })[];
  ports: Record<string, number[]>;
  cases: [string, string[]][];
  unknown: [string, string[]][];
}
const shared = JSON.parse(
  readFileSync(new URL('../../tests/contract/filters.json', import.meta.url), 'utf8'),
) as Shared;

const bits = (...names: (typeof SCOPE_NAMES)[number][]): number =>
  names.reduce((sum, name) => sum | (1 << SCOPE_NAMES.indexOf(name)), 0);

const traffic = new Traffic();
traffic.take(
  snapshot(shared.pods.map(({ scopes = [], ...pod }, at) => ({ ...pod, id: at + 1, scopes: bits(...scopes) }))),
);
const PORTS = new Map(Object.entries(shared.ports).map(([pod, ports]) => [pod, new Set(ports)]));

function found(text: string, ports: Ports = PORTS): string[] {
  const fits = matcher(parse(text), traffic.rows.pods, ports);
  return traffic.rows.pods.flatMap((pod) => (pod && fits(pod) ? [pod.name] : []));
}

test.each(shared.cases)('%s finds %s', (text, names) => {
  expect(found(text)).toEqual(names);
});

test.each(shared.unknown)('%s names fields that there are none of: %s', (text, names) => {
  expect(unknownFields(text)).toEqual(names);
});

test('a port of which nobody has told yet finds nothing', () => {
  expect(found('port:5432', NO_PORTS)).toEqual([]);
});

test('a term is put in, and taken out again', () => {
  expect(toggled('web', 'ns:shop')).toBe('web ns:shop');
  expect(toggled('web NS:shop', 'ns:shop')).toBe('web');
});

test('a row has the names of its scopes and of their columns', () => {
  expect(scopesOf(bits('cross-zone', 'unknown'))).toEqual(['cross-zone', 'unknown', 'cross', 'other']);
});

test.each([
  ['10.0.0.0/8', '10.255.0.1', true],
  ['10.0.0.0/8', '11.0.0.1', false],
  ['0.0.0.0/0', '8.8.8.8', true],
  ['fd00::/8', 'fd42:706c:78:1::11', true],
  ['fd00::/8', '10.0.0.1', false],
  ['::1/128', '::1', true],
])('%s holds %s: %s', (range, address, holds) => {
  const known = rangeOf(range);
  expect(known && inRange(address, known)).toBe(holds);
});

test.each(['10.0.0.0', '10.0.0.0/33', '10.0.0/8', 'x/8', 'fd00::1::2/64', '1.2.3.4/8/9'])('%s is no range', (text) => {
  expect(rangeOf(text)).toBeNull();
});
