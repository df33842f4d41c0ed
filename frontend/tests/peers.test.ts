import { expect, test } from 'vitest';
import { destinationKey, outside, sorted } from '../src/lib/outside';
import { peerName, Watched } from '../src/lib/peers';
import { neighbours } from '../src/lib/neighbours';
import type { Destination, External } from '../src/lib/rest';
import { watched } from './messages';

test('rates of peers come from two messages', () => {
  const pod = new Watched('shop/web');
  pod.take(watched(1000, [{ address: '8.8.8.8', tx: 100, rx: 0 }]));
  expect(pod.peers?.[0]?.txRate).toBeNaN();
  pod.take(watched(1002, [{ address: '8.8.8.8', tx: 300, rx: 10 }]));
  expect(pod.peers?.[0]?.txRate).toBe(100);
  expect(pod.peers?.[0]?.rxRate).toBe(5);
});

test('a message of the same moment tells no other rate', () => {
  const pod = new Watched('shop/web');
  for (const ts of [1000, 1001, 1001]) pod.take(watched(ts, [{ address: '8.8.8.8', tx: ts, rx: 0 }]));
  expect(pod.peers?.[0]?.txRate).toBe(1);
});

test('peers that cannot be told apart by their names still are two', () => {
  const pod = new Watched('shop/web');
  pod.take(
    watched(1000, [
      { address: '8.8.8.8', tx: 1, rx: 0 },
      { address: '8.8.8.8', tx: 2, rx: 0 },
    ]),
  );
  expect(new Set(pod.peers?.map((peer) => peer.key)).size).toBe(2);
});

test('peers that cannot be read leave those of before', () => {
  const pod = new Watched('shop/web');
  pod.take(watched(1000, [{ address: '8.8.8.8', tx: 1, rx: 0 }]));
  pod.take({ ...watched(1001, []), peers: null });
  expect(pod.peers).toHaveLength(1);
});

test('what a peer is called', () => {
  const nobody = { name: '', namespace: '', address: '', rule: '' };
  expect(peerName({ ...nobody, name: 'db', namespace: 'data' })).toBe('data/db');
  expect(peerName({ ...nobody, name: 'office' })).toBe('office');
  expect(peerName({ ...nobody, address: '10.0.0.1' })).toBe('10.0.0.1');
  expect(peerName({ ...nobody, rule: 'folded' })).toBe('other peers');
  expect(peerName(nobody)).toBe('not known');
});

test('of many neighbours the largest stand for themselves', () => {
  const pod = new Watched('shop/web');
  pod.take(
    watched(
      1000,
      Array.from({ length: 9 }, (_, at) => ({ address: `10.0.0.${at}`, tx: 100 - at, rx: 0 })),
    ),
  );
  const told = neighbours('shop/web', pod.peers ?? [], 'out');
  expect(told.order).toEqual(['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', 'others']);
  expect(told.flows.at(-1)?.value).toBe(95 + 94 + 93 + 92);
  expect(neighbours('shop/web', pod.peers ?? [], 'in').flows).toEqual([]);
});

const one = (address: string, sent: number, received: number): Destination => ({
  ...{ address, name: '', scope: 'internet', rule: 'public', protocol: 'tcp', port: 443, server: 'peer' },
  ...{ pods: ['shop/web'], podCount: 1, transmitBytes: sent, receivedBytes: received },
  ...{ firstSeen: '2026-01-01T00:00:00Z', lastSeen: '2026-01-01T00:01:00Z' },
});
const answer = (...destinations: Destination[]): External => ({
  destinations,
  more: { destinations: 0, transmitBytes: 0, receivedBytes: 0 },
});

test('destinations have rates from two answers', () => {
  const [first] = outside(answer(one('8.8.8.8', 50, 20)), answer(one('8.8.8.8', 10, 20)), 4);
  expect([first?.txRate, first?.rxRate]).toEqual([10, 0]);
  expect(outside(answer(one('8.8.8.8', 50, 20)), null, 0)[0]?.txRate).toBeNaN();
});

test('destinations are sorted as asked for', () => {
  const all = outside(answer(one('10.0.0.9', 1, 1), one('10.0.0.10', 5, 0), one('1.1.1.1', 2, 9)), null, 0);
  const names = (order: string): string[] => sorted(all, order).map((entry) => entry.address);
  expect(names('-total')).toEqual(['1.1.1.1', '10.0.0.10', '10.0.0.9']);
  expect(names('-tx')).toEqual(['10.0.0.10', '1.1.1.1', '10.0.0.9']);
  expect(names('name')).toEqual(['1.1.1.1', '10.0.0.9', '10.0.0.10']);
  expect(destinationKey(one('1.1.1.1', 0, 0))).toBe('1.1.1.1|tcp|443|peer|public|');
});
