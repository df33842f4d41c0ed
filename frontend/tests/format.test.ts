import { expect, test } from 'vitest';
import { ago, bytes, lasting, percent, perSecond, rate } from '../src/lib/format';

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.00 kB'],
  [9994, '9.99 kB'],
  [9996, '10.0 kB'],
  [99_960, '100 kB'],
  [999_600, '1.00 MB'],
  [4_560_000_000, '4.56 GB'],
  [null, '–'],
  [Number.NaN, '–'],
])('%s bytes are written as %s', (value, text) => {
  expect(bytes(value)).toBe(text);
});

test.each([
  [0, '0 s'],
  [59.4, '59 s'],
  [200, '3 min 20 s'],
  [7500, '2 h 5 min'],
  [100 * 3600, '4 d 4 h'],
])('%s seconds last %s', (seconds, text) => {
  expect(lasting(seconds)).toBe(text);
});

test('bits are eight to a byte', () => {
  expect(rate(1250, true)).toBe('10.0 kbit');
  expect(perSecond(1250, false)).toBe('1.25 kB/s');
  expect(perSecond(null, true)).toBe('–');
});

test('parts are neither nothing nor all where they are not', () => {
  expect(percent(1, 1000)).toBe('<1 %');
  expect(percent(999, 1000)).toBe('>99 %');
  expect(percent(0, 1000)).toBe('0 %');
  expect(percent(1, 0)).toBe('–');
});

test('times ago', () => {
  expect([ago(95, 100), ago(0, 100), ago(40, 100), ago(1, 4000)]).toEqual(['5 s ago', '–', '1 min ago', '1 h ago']);
});
