import { expect, test } from 'vitest';
import { nodeRows } from '../src/lib/agents';
import { parse } from '../src/lib/filter';
import { drawn, filtered, groupTitle, rates, termsOf } from '../src/lib/map';
import type { AgentNodes, Edge } from '../src/lib/rest';
import { ribbons } from '../src/lib/sankey';
import { Traffic } from '../src/lib/traffic';
import { snapshot } from './messages';

const edge = (from: string, to: string, bytes: number): Edge => ({ from, to, bytes, packets: 1 });
const EDGES = [
  edge('shop', 'data', 100),
  edge('data', 'shop', 50),
  edge('shop', ':internet', 30),
  edge('jobs', 'jobs', 5),
  edge('shop', ':service', 2),
  edge(':node', 'jobs', 1),
];
const space = { width: 600, height: 400, gap: 8, bar: 10 };

test('ribbons run from senders to receivers, also in circles', () => {
  const picture = drawn(EDGES, EDGES, 12);
  const laid = ribbons(picture.flows, picture.order, space);
  expect(laid.senders.map((end) => end.name)).toEqual(['data', 'jobs', 'shop', ':machinery']);
  expect(laid.receivers.map((end) => end.name)).toEqual(['data', 'jobs', 'shop', ':internet', ':machinery']);
  expect(laid.ribbons).toHaveLength(6);
  expect(laid.ribbons.every((ribbon) => ribbon.path.startsWith('M'))).toBe(true);
  expect(ribbons([], [], space).ribbons).toEqual([]);
});

test('places depend on names and not on amounts: nothing jumps', () => {
  const other = EDGES.map((one, at) => ({ ...one, bytes: 1 + at * 1000 }));
  const names = (edges: Edge[]): string[] => {
    const picture = drawn(edges, EDGES, 12);
    return ribbons(picture.flows, picture.order, space).receivers.map((end) => end.name);
  };
  expect(names(other)).toEqual(names(EDGES));
});

test('beyond the largest groups the rest is one', () => {
  const picture = drawn(EDGES, EDGES, 2);
  expect(picture.folded).toBe(1);
  expect(picture.order.slice(0, 3)).toEqual(['data', 'shop', ':others']);
  expect(picture.flows.find((flow) => flow.from === ':others')?.value).toBe(5);
  expect(picture.flows.reduce((sum, flow) => sum + flow.value, 0)).toBe(188);
});

test('a filter keeps edges with either end', () => {
  const found = (text: string): number => filtered(EDGES, parse(text), 'namespace').length;
  expect(found('ns:jobs')).toBe(2);
  expect(found('scope:internet')).toBe(1);
  expect(found('-ns:shop')).toBe(2);
  expect(found('data')).toBe(2);
  // What says nothing about namespaces leaves all of them.
  expect(found('label:app=web')).toBe(6);
});

test('rates are what passed between two answers', () => {
  const [first, second] = rates([edge('a', 'b', 100), edge('a', 'c', 8)], [edge('a', 'b', 60)], 4);
  expect([first?.bytes, second?.bytes]).toEqual([10, 2]);
});

test('names, and the terms behind them', () => {
  expect(groupTitle(':internet')).toBe('Internet');
  expect(groupTitle(':machinery')).toBe('Services, nodes');
  expect(termsOf('namespace', 'shop')).toEqual(['ns:shop']);
  expect(termsOf('workload', 'shop/web')).toEqual(['owner:web']);
  expect(termsOf('zone', 'eu-1a')).toEqual(['node:eu-1a']);
  expect(termsOf('namespace', ':internet')).toEqual(['scope:internet']);
  expect(termsOf('namespace', ':others')).toEqual([]);
});

test('nodes have sums of their pods, and what their agents say', () => {
  const traffic = new Traffic();
  const nodes = {
    name: ['node-a'],
    zone: ['z1'],
    region: [''],
    live: [true],
    reported: [null],
    source: ['tcx'],
    interfaces: [3],
  };
  traffic.take(
    snapshot(
      [
        { id: 1, numbers: { tx: 5, rx: 5, local: 4, internet_tx: 6 } },
        { id: 2, numbers: { tx: 1, rx: 0, local: 1 }, ended: 1500 },
        { id: 3, node: 'node-b', numbers: { tx: 1, rx: 0 } },
      ],
      { nodes },
    ),
  );
  const agent = (cpuSeconds: number): AgentNodes =>
    ({
      'node-a': { live: true, cpuSeconds, lostPackets: { drop: 2, full: 1 }, memoryMaxBytes: 5 },
    }) as unknown as AgentNodes;
  const [a, b] = nodeRows(traffic.rows, traffic.nodes, agent(12), agent(10), 4);
  expect([a?.name, a?.mix.local, a?.mix.internet, a?.pods, a?.lost, a?.cpu]).toEqual(['node-a', 5, 6, 1, 3, 0.5]);
  // Nobody reports for it.
  expect([b?.name, b?.live, b?.lost]).toEqual(['node-b', false, null]);
  expect(b?.rate).toBeNaN();
});
