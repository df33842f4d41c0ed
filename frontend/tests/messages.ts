/** Messages as the API sends them, of a few pods. */

import {
  COLUMNS,
  type Delta,
  type PodColumns,
  type RowColumns,
  type Snapshot,
  type WatchedPod,
} from '../src/lib/live-message';

type Numbers = Partial<Record<(typeof COLUMNS)[number], number | null>>;

export interface Row {
  id: number;
  ns?: string;
  name?: string;
  node?: string;
  owner?: string;
  labels?: string[];
  ips?: string[];
  scopes?: number;
  ended?: number | null;
  numbers?: Numbers;
}

export function words(): { list: string[]; place: (text: string) => number } {
  const list = [''];
  return {
    list,
    place: (text) => {
      if (!list.includes(text)) list.push(text);
      return list.indexOf(text);
    },
  };
}

export function pods(rows: readonly Row[], place: (text: string) => number): PodColumns {
  return {
    id: rows.map((row) => row.id),
    ns: rows.map((row) => place(row.ns ?? 'shop')),
    name: rows.map((row) => row.name ?? `pod-${row.id}`),
    node: rows.map((row) => place(row.node ?? 'node-a')),
    zone: rows.map(() => place('z1')),
    region: rows.map(() => place('r1')),
    owner_kind: rows.map(() => place('ReplicaSet')),
    owner: rows.map((row) => place(row.owner ?? '')),
    labels: rows.map((row) => (row.labels ?? []).map(place)),
    ips: rows.map((row) => row.ips ?? []),
    iface: rows.map((row) => `veth${row.id}`),
    coverage: rows.map(() => place('full')),
    scopes: rows.map((row) => row.scopes ?? 0),
    started: rows.map(() => 1000),
    ended: rows.map((row) => row.ended ?? null),
  };
}

export function numbers(rows: readonly Row[]): RowColumns {
  const column = (name: (typeof COLUMNS)[number]): (number | null)[] =>
    rows.map((row) => (row.numbers && name in row.numbers ? (row.numbers[name] ?? null) : 0));
  return Object.fromEntries(COLUMNS.map((name) => [name, column(name)])) as unknown as RowColumns;
}

const WHOLE = { epoch: 7, started: 1000, reporting: [2, 2] as [number, number], problem: '' };

export function snapshot(rows: readonly Row[], more: Partial<Snapshot> = {}): Snapshot {
  const { list, place } = words();
  const columns = pods(rows, place);
  return {
    t: 'snapshot',
    v: 1,
    ...WHOLE,
    seq: 100,
    ts: 2000,
    tot: COLUMNS.map(() => 0),
    columns: COLUMNS,
    words: list,
    nodes: { name: [], zone: [], region: [], live: [], reported: [], source: [], interfaces: [] },
    pods: columns,
    i: rows.map((row) => row.id),
    rows: numbers(rows),
    timeline: [],
    sparks: { until: 2000, of: rows.map(() => []) },
    ...more,
  };
}

export function delta(
  base: number,
  seq: number,
  rows: readonly Row[],
  more: Partial<Delta> & { new?: Row[] } = {},
): Delta {
  const { list, place } = words();
  const { new: added = [], ...rest } = more;
  const columns = pods(added, place);
  return {
    t: 'delta',
    base,
    ...WHOLE,
    seq,
    ts: 2000 + seq - 100,
    tot: COLUMNS.map(() => 0),
    words: list,
    nodes: null,
    i: rows.map((row) => row.id),
    rows: numbers(rows),
    add: columns,
    gone: [],
    timeline: [],
    ...rest,
  };
}

export function watched(ts: number, peers: { address: string; tx: number; rx: number }[]): WatchedPod {
  const { list, place } = words();
  const each = <T>(value: T): T[] => peers.map(() => value);
  return {
    t: 'pod',
    pod: 'shop/web',
    epoch: 7,
    seq: 1,
    ts,
    uid: 'u',
    container: '',
    words: list,
    scopes: { scope: ['internet'], tx: [10], rx: [20], packets: [3], tx_rate: [1], rx_rate: [null] },
    peers: {
      address: peers.map((peer) => peer.address),
      local: each(''),
      name: each(''),
      namespace: each(0),
      kind: each(0),
      protocol: each(place('tcp')),
      port: each(443),
      server: each(place('peer')),
      scope: each(place('internet')),
      rule: each(place('public')),
      via: each(0),
      candidates: peers.map(() => []),
      candidate_count: each(0),
      tx: peers.map((peer) => peer.tx),
      rx: peers.map((peer) => peer.rx),
      packets: each(1),
      first: each(1000),
      last: each(2000),
    },
    more: 0,
  };
}
