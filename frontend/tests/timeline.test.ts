import { expect, test } from 'vitest';
import { apart, labelsAt, stacked } from '../src/lib/stack';
import { Timeline } from '../src/lib/timeline';

const step = (second: number, ...sizes: number[]): number[] => [second, ...sizes];

test('bytes of a step become rates, and a step without an entry is one without traffic', () => {
  const timeline = new Timeline();
  timeline.take([step(1000, 50, 0, 0, 0, 0), step(1010, 100, 5, 0, 0, 0)]);
  const { x, y } = timeline.curve(1020);
  expect(x.slice(-4)).toEqual([1002.5, 1007.5, 1012.5, 1017.5]);
  expect(y[0]?.slice(-4)).toEqual([10, 0, 20, 0]);
  expect(y[1]?.at(-2)).toBe(1);
});

test('before the first step nothing is known', () => {
  const timeline = new Timeline();
  timeline.take([step(1000, 50, 0, 0, 0, 0)]);
  expect(timeline.curve(1004).y[0]?.slice(-3)).toEqual([null, null, 12.5]);
});

test('a step that has just begun is not drawn, one that goes on by what passed of it', () => {
  const timeline = new Timeline();
  timeline.take([step(1000, 50, 0, 0, 0, 0), step(1005, 30, 0, 0, 0, 0)]);
  expect(timeline.curve(1006).y[0]?.at(-1)).toBe(10);
  expect(timeline.curve(1008).y[0]?.at(-1)).toBe(10);
});

test('it has round widths and never more than 15 minutes', () => {
  const timeline = new Timeline();
  timeline.take([step(1000, 1, 1, 1, 1, 1)]);
  expect(timeline.curve(1030).seconds).toBe(120);
  expect(timeline.curve(1200).seconds).toBe(300);
  expect(timeline.curve(1600).seconds).toBe(900);
  for (let at = 0; at < 400; at += 1) timeline.take([step(1000 + at * 5, 1, 1, 1, 1, 1)]);
  expect(timeline.curve(3004).x).toHaveLength(180);
});

test('layers are drawn over those below and above them together', () => {
  const curve = {
    seconds: 10,
    x: [1, 2],
    y: [
      [1, null],
      [2, null],
      [0, null],
      [3, null],
      [4, null],
    ],
  };
  expect(stacked(curve)).toEqual([
    [1, 2],
    [10, null],
    [6, null],
    [3, null],
    [3, null],
    [1, null],
  ]);
  expect(labelsAt(curve, 0).map((label) => [label.column, label.middle])).toEqual([
    ['local', 0.5],
    ['cross', 2],
    ['private', 3],
    ['internet', 4.5],
    ['other', 8],
  ]);
});

test('labels keep apart, within the height', () => {
  expect(apart([50, 52, 53], 10, 100)).toEqual([50, 60, 70]);
  expect(apart([98, 99], 10, 100)).toEqual([85, 95]);
  expect(apart([], 10, 100)).toEqual([]);
});
