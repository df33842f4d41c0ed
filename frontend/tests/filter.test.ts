import { expect, test } from 'vitest';
import { inRange, rangeOf } from '../src/lib/address';
import { matcher, NO_PORTS, parse, scopesOf, toggled } from '../src/lib/filter';
import { SCOPE_NAMES } from '../src/lib/live-message';
import { Traffic } from '../src/lib/traffic';
import { snapshot } from './messages';

const bits = (...names: (typeof SCOPE_NAMES)[number][]): number =>
  names.reduce((sum, name) => sum | (1 << SCOPE_NAMES.indexOf(name)), 0);

const traffic = new Traffic();
traffic.take(
  snapshot([
    {
      id: 1,
      name: 'web-1',
      labels: ['app=web', 'tier=front'],
      ips: ['10.42.1.11', 'fd42::11'],
      scopes: bits('internet'),
    },
    {
      id: 2,
      name: 'web-2',
      node: 'node-b',
      owner: 'web',
      ips: ['10.42.2.11'],
      scopes: bits('same-node', 'cross-zone'),
    },
    { id: 3, name: 'db-0', ns: 'data', ips: ['10.200.3.15'] },
    { id: 4, name: 'scraper', ns: 'shop-monitoring', ips: ['192.168.1.1'] },
  ]),
);

function found(text: string, ports = NO_PORTS): string[] {
  const fits = matcher(parse(text), traffic.rows.pods, ports);
  return traffic.rows.pods.flatMap((pod) => (pod && fits(pod) ? [pod.name] : []));
}

test.each([
  ['', ['web-1', 'web-2', 'db-0', 'scraper']],
  ['web', ['web-1', 'web-2']],
  ['WEB node-b', ['web-2']],
  ['-web', ['db-0', 'scraper']],
  ['ns:shop', ['web-1', 'web-2']],
  ['ns:sho', ['web-1', 'web-2', 'scraper']],
  ['ns:shop*', ['web-1', 'web-2', 'scraper']],
  ['ns:shop ns:data', ['web-1', 'web-2', 'db-0']],
  ['-ns:shop -ns:data', ['scraper']],
  ['ns:shop -node:node-b', ['web-1']],
  ['ns:', ['web-1', 'web-2', 'db-0', 'scraper']],
  ['node:z1 db', ['db-0']],
  ['label:app', ['web-1']],
  ['label:app=web', ['web-1']],
  ['label:tier=b*', []],
  ['owner:web', ['web-2']],
  ['owner:replicaset/web', ['web-2']],
  ['ip:10.42.2.11', ['web-2']],
  ['ip:10.42.', ['web-1', 'web-2']],
  ['ip:10.42.0.0/16', ['web-1', 'web-2']],
  ['-ip:10.0.0.0/8', ['scraper']],
  ['ip:fd42::/16', ['web-1']],
  ['scope:internet', ['web-1']],
  ['scope:local', ['web-2']],
  ['scope:cross-zone', ['web-2']],
  ['fd42::11', ['web-1']],
  ['colour:red', []],
])('%s finds %s', (text, names) => {
  expect(found(text)).toEqual(names);
});

test('ports are whole numbers of what was asked for', () => {
  const ports = new Map([['shop/web-1', new Set([80, 5432])]]);
  expect(found('port:5432', ports)).toEqual(['web-1']);
  expect(found('port:54', ports)).toEqual([]);
  expect(found('port:5432')).toEqual([]);
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
