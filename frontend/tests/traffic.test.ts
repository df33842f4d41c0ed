import { expect, test } from 'vitest';
import { SPARK_S } from '../src/lib/rows';
import { Traffic } from '../src/lib/traffic';
import { delta, snapshot, type Row } from './messages';

const WEB: Row = { id: 1, name: 'web', numbers: { tx: 10, rx: 20, internet_tx: 3, internet_rx: 4, total: 500 } };
const DB: Row = { id: 2, ns: 'data', name: 'db', numbers: { tx: null, rx: null, total: 9 } };

function of(traffic: Traffic, key: string, field: 'rate' | 'internet' | 'total' | 'tx'): number {
  const slot = traffic.rows.slot(key);
  return slot === undefined ? -1 : (traffic.rows.numbers[field][slot] ?? -2);
}

test('a snapshot gives rows, with sums of their numbers', () => {
  const traffic = new Traffic();
  expect(traffic.take(snapshot([WEB, DB]))).toBe(true);
  expect(traffic.rows.size).toBe(2);
  expect(of(traffic, 'shop/web', 'rate')).toBe(30);
  expect(of(traffic, 'shop/web', 'internet')).toBe(7);
  expect(of(traffic, 'shop/web', 'total')).toBe(500);
});

test('what is not known is no number, and never 0', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([DB]));
  expect(of(traffic, 'data/db', 'rate')).toBeNaN();
  expect(of(traffic, 'data/db', 'total')).toBe(9);
});

test('a delta changes rows, adds and removes them', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB, DB]));
  const job: Row = { id: 3, name: 'job', numbers: { tx: 1, rx: 1 } };
  expect(traffic.take(delta(100, 101, [job], { new: [job], gone: [2] }))).toBe(true);
  expect(traffic.rows.size).toBe(2);
  expect(of(traffic, 'data/db', 'rate')).toBe(-1);
  expect(of(traffic, 'shop/job', 'rate')).toBe(2);
});

test('a slot that is used again has nothing of the one before', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB]));
  const slot = traffic.rows.slot('shop/web');
  traffic.take(delta(100, 101, [], { gone: [1] }));
  traffic.take(delta(101, 102, [], { new: [{ id: 9, name: 'new' }] }));
  expect(traffic.rows.slot('shop/new')).toBe(slot);
  expect(of(traffic, 'shop/new', 'rate')).toBe(0);
  expect([...traffic.rows.spark(slot as number, new Float32Array(SPARK_S))].some(Boolean)).toBe(false);
});

test('of two pods of one name the one that came last has it, and goes alone', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB]));
  traffic.take(delta(100, 101, [], { new: [{ id: 5, name: 'web' }] }));
  traffic.take(delta(101, 102, [], { gone: [1] }));
  expect(traffic.rows.slot('shop/web')).toBe(traffic.rows.slotOfId(5));
});

test.each([
  ['of another base', delta(99, 101, [WEB])],
  ['of another epoch', delta(100, 101, [WEB], { epoch: 8 })],
])('a message %s is refused and changes nothing', (_, message) => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB]));
  expect(traffic.take(message)).toBe(false);
  expect(traffic.seq).toBe(100);
});

test('the last minute comes with the snapshot and goes on with each second', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB], { sparks: { until: 2005, of: [[0, 0, 0, 0, 0, 0, 0, 0, 0, 50, 100, 5]] } }));
  const before = [...traffic.rows.spark(0, new Float32Array(SPARK_S))];
  expect(before.slice(-6)).toEqual([20, 20, 20, 20, 20, 30]);
  traffic.take(delta(100, 102, [{ ...WEB, numbers: { tx: 1, rx: 1 } }]));
  const after = [...traffic.rows.spark(0, new Float32Array(SPARK_S))];
  expect(after.slice(-3)).toEqual([30, 2, 2]);
});

test('a copy stays as it is', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB]));
  const copy = traffic.copy();
  traffic.take(delta(100, 101, [{ ...WEB, numbers: { tx: 1, rx: 1 } }], { gone: [] }));
  expect(of(copy, 'shop/web', 'rate')).toBe(30);
  expect(of(traffic, 'shop/web', 'rate')).toBe(2);
  expect(copy.seq).toBe(100);
});

test('rows beyond the first room are kept', () => {
  const traffic = new Traffic();
  const many = Array.from({ length: 3000 }, (_, at) => ({ id: at + 1, numbers: { tx: at, rx: 0 } }));
  traffic.take(snapshot(many));
  expect(traffic.rows.size).toBe(3000);
  expect(of(traffic, 'shop/pod-3000', 'rate')).toBe(2999);
});

test('pods that have ended are counted: when they end, when they are told again, when they go', () => {
  const traffic = new Traffic();
  traffic.take(snapshot([WEB, { ...DB, ended: 1900 }]));
  const ended = [traffic.rows.ended];
  traffic.take(delta(100, 101, [], { new: [{ ...WEB, ended: 1990 }] }));
  ended.push(traffic.rows.ended);
  traffic.take(delta(101, 102, [], { new: [{ ...WEB, ended: 1990 }, DB] }));
  ended.push(traffic.rows.ended);
  traffic.take(delta(102, 103, [], { gone: [1, 2] }));
  ended.push(traffic.rows.ended);
  expect(ended).toEqual([1, 2, 1, 0]);
});
