/** Destinations outside the cluster, with rates from what changed between two answers. */

import type { Destination, External } from './rest';

export interface Outside extends Destination {
  key: string;
  tx: number;
  rx: number;
  /** Bytes per second; NaN before two answers have come. */
  txRate: number;
  rxRate: number;
  first: Date;
  last: Date;
  /** What bare words are looked for in. */
  text: string;
}

interface ExternalColumn {
  key: string;
  title: string;
  spoken?: string;
  kind: 'text' | 'number';
  from: '' | 'm' | 'l' | 'xl';
}

export const EXTERNAL_COLUMNS: readonly ExternalColumn[] = [
  { key: 'name', title: 'Destination', kind: 'text', from: '' },
  { key: 'port', title: 'Port', kind: 'text', from: 'm' },
  { key: 'scope', title: 'Scope', kind: 'text', from: 'l' },
  { key: 'pods', title: 'Pods', kind: 'number', from: 'm' },
  { key: 'txRate', title: '↑ now', spoken: 'Up now, per second', kind: 'number', from: '' },
  { key: 'rxRate', title: '↓ now', spoken: 'Down now, per second', kind: 'number', from: '' },
  { key: 'tx', title: '↑ sum', spoken: 'Up, sum since the session began', kind: 'number', from: 'l' },
  { key: 'rx', title: '↓ sum', spoken: 'Down, sum since the session began', kind: 'number', from: 'l' },
  { key: 'total', title: 'Total', kind: 'number', from: '' },
  { key: 'first', title: 'First seen', kind: 'number', from: 'xl' },
  { key: 'last', title: 'Last seen', kind: 'number', from: 'xl' },
];

/** What keeps destinations apart. */
export function destinationKey(one: Destination): string {
  return [one.address, one.protocol, one.port, one.server, one.rule, one.name].join('|');
}

/** The destinations of an answer; `before` is the one `passed` seconds earlier. */
export function outside(now: External | null, before: External | null, passed: number): Outside[] {
  const known = new Map((before?.destinations ?? []).map((one) => [destinationKey(one), one]));
  const rate = (size: number, was: number | undefined): number =>
    before && passed > 0 ? Math.max(0, size - (was ?? 0)) / passed : Number.NaN;
  const used = new Set<string>();
  return (now?.destinations ?? []).map((one) => {
    const whole = destinationKey(one);
    let key = whole;
    while (used.has(key)) key += '+';
    used.add(key);
    const was = known.get(whole);
    return {
      ...one,
      key,
      tx: one.transmitBytes,
      rx: one.receivedBytes,
      txRate: rate(one.transmitBytes, was?.transmitBytes),
      rxRate: rate(one.receivedBytes, was?.receivedBytes),
      first: new Date(one.firstSeen),
      last: new Date(one.lastSeen),
      text: `${one.address} ${one.name} ${one.port} ${one.protocol} ${one.scope} ${one.pods.join(' ')}`.toLowerCase(),
    };
  });
}

const collator = new Intl.Collator('en', { numeric: true });

const VALUES: Record<string, (one: Outside) => number | string> = {
  name: (one) => one.name || one.address,
  port: (one) => String(one.port).padStart(5, '0') + one.protocol,
  scope: (one) => one.scope,
  pods: (one) => one.podCount,
  txRate: (one) => one.txRate || 0,
  rxRate: (one) => one.rxRate || 0,
  tx: (one) => one.tx,
  rx: (one) => one.rx,
  first: (one) => one.first.getTime(),
  last: (one) => one.last.getTime(),
};

/** In the order that `-total`, `name` … asks for; of equals the one with more bytes comes first. */
export function sorted(all: readonly Outside[], order: string): Outside[] {
  const down = order.startsWith('-');
  const sign = down ? -1 : 1;
  const value = VALUES[down ? order.slice(1) : order] ?? ((one: Outside): number => one.tx + one.rx);
  return [...all].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const by = typeof x === 'string' ? collator.compare(x, String(y)) : x - Number(y);
    return sign * by || b.tx + b.rx - a.tx - a.rx || (a.key < b.key ? -1 : 1);
  });
}
