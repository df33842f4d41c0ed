import { expect, test } from 'vitest';
import { address, waitFor } from '../src/lib/connection';
import { csv, json } from '../src/lib/download';
import { ranged } from '../src/lib/range';
import { area, largest, viewBox } from '../src/lib/spark';
import { Traffic } from '../src/lib/traffic';
import { snapshot } from './messages';

test('the WebSocket is beside the page, also below a path, and goes on from where it was', () => {
  expect(address('http://127.0.0.1:1337/podloxx', null)).toBe('ws://127.0.0.1:1337/traffic/ws?v=1');
  expect(address('https://host/sub/', { epoch: 7, seq: 9 })).toBe('wss://host/sub/traffic/ws?v=1&resume=7%3A9');
});

test('waits are doubled, bounded and not the same for all', () => {
  expect([0, 1, 2, 3, 4, 9].map((failures) => waitFor(failures, 0))).toEqual([1, 2, 4, 8, 15, 15]);
  expect(waitFor(0, 0.9)).toBe(2);
});

const SHEET = {
  columns: ['pod', 'rate'],
  rows: [
    ['a,"b"', 1],
    ['=cmd()', Number.NaN],
    ['line\nbreak', null],
  ],
} as const;

test('CSV quotes what it must, and gives no formulas to spreadsheets', () => {
  expect(csv(SHEET)).toBe('pod,rate\r\n"a,""b""",1\r\n\'=cmd(),\r\n"line\nbreak",\r\n');
});

test('JSON says null where nobody knows', () => {
  expect(JSON.parse(json(SHEET))).toEqual([
    { pod: 'a,"b"', rate: 1 },
    { pod: '=cmd()', rate: null },
    { pod: 'line\nbreak', rate: null },
  ]);
});

test('a sparkline fills its box', () => {
  expect(viewBox(3)).toBe('0 -6 20 212');
  expect(area([0, 5, 10], 10)).toBe('M-40 200 0 200 10 100 20 0H60V240H-40Z');
  expect(area([0, 0], 0)).toBe('');
  expect(viewBox(0)).toBe('0 -6 10 212');
  expect(largest([1, 7, 3])).toBe(7);
});

test('a range gives averages, and what is not kept is not known', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([{ id: 1, name: 'web', numbers: { tx: 9, rx: 9, syn: 4, total: 70 } }, { id: 2 }]));
  const both = { transmitBytes: 300, receivedBytes: 100 };
  ranged(traffic, { seconds: 10, pods: { 'shop/web': { ...both, columns: { internet: both } } } });
  const { numbers } = traffic.rows;
  expect([numbers.tx[0], numbers.rate[0], numbers.internet_rx[0], numbers.total[0]]).toEqual([30, 40, 10, 70]);
  expect(numbers.syn[0]).toBeNaN();
  expect(numbers.rate[1]).toBe(0);
  expect(traffic.totals.internet).toBe(40);
});
