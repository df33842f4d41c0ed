/** The rows as averages over a range of the last 15 minutes. */

import { FIELDS } from './columns';
import type { RangeAnswer } from './rest';
import type { Traffic } from './traffic';

/** `traffic` with the rates of a range in place of those of now; connection attempts are not kept, so nobody knows them. */
export function ranged(traffic: Traffic, answer: RangeAnswer): Traffic {
  const { numbers, pods } = traffic.rows;
  const seconds = Math.max(1, answer.seconds);
  pods.forEach((pod, slot) => {
    const told = pod && answer.pods[pod.key];
    const of = (column: string, way: 'transmitBytes' | 'receivedBytes'): number =>
      (told?.columns[column]?.[way] ?? 0) / seconds;
    const both = (column: string): number => of(column, 'transmitBytes') + of(column, 'receivedBytes');
    numbers.tx[slot] = (told?.transmitBytes ?? 0) / seconds;
    numbers.rx[slot] = (told?.receivedBytes ?? 0) / seconds;
    numbers.rate[slot] = (numbers.tx[slot] as number) + (numbers.rx[slot] as number);
    numbers.local[slot] = both('local');
    numbers.cross[slot] = both('cross');
    numbers.private[slot] = both('private');
    numbers.internet[slot] = both('internet');
    numbers.internet_tx[slot] = of('internet', 'transmitBytes');
    numbers.internet_rx[slot] = of('internet', 'receivedBytes');
    numbers.other[slot] = both('other');
    numbers.syn[slot] = Number.NaN;
  });
  for (const field of FIELDS) {
    if (field === 'total') continue;
    let sum = 0;
    pods.forEach((pod, slot) => (sum += pod ? (numbers[field][slot] as number) : 0));
    traffic.totals[field] = sum;
  }
  return traffic;
}
