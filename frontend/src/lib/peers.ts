/** The peers of the watched pod, with rates from what changed between two messages. */

import { columnOf, type Mix } from './columns';
import type { WatchedPod } from './live-message';

export interface Peer {
  /** What keeps peers apart. */
  key: string;
  address: string;
  name: string;
  namespace: string;
  kind: string;
  protocol: string;
  port: number | null;
  server: string;
  scope: string;
  column: Mix;
  rule: string;
  via: string;
  candidates: string[];
  candidateCount: number;
  /** Bytes since the session began. */
  tx: number;
  rx: number;
  /** Bytes per second; NaN before two messages have come. */
  txRate: number;
  rxRate: number;
  first: number;
  last: number;
}

export interface ScopeSum {
  scope: string;
  column: Mix;
  tx: number;
  rx: number;
  txRate: number;
  rxRate: number;
}

/** The shortest time that rates are taken over, and the longest that they stay without news. */
const LEAST_S = 0.9;

/** What is known of one watched pod. */
export class Watched {
  peers: Peer[] | null = null;
  scopes: ScopeSum[] = [];
  more = 0;
  container = '';
  /** False where nobody knows such a pod. */
  known = true;
  private before = new Map<string, { tx: number; rx: number; ts: number; txRate: number; rxRate: number }>();

  constructor(readonly pod: string) {}

  /** Take a message about the pod. */
  take(message: WatchedPod): void {
    const word = (at: number | undefined): string => message.words[at ?? 0] ?? '';
    this.known = message.uid !== '';
    this.container = message.container;
    this.more = message.more;
    const { scopes } = message;
    this.scopes = scopes.scope.map((scope, at) => ({
      scope,
      column: columnOf(scope),
      tx: scopes.tx[at] ?? 0,
      rx: scopes.rx[at] ?? 0,
      txRate: scopes.tx_rate[at] ?? Number.NaN,
      rxRate: scopes.rx_rate[at] ?? Number.NaN,
    }));
    // Where they cannot be read this time, those of before are still the best there is.
    const found = message.peers;
    if (!found) return;
    const used = new Set<string>();
    this.peers = found.address.map((address, at) => {
      const one = {
        address,
        name: found.name[at] ?? '',
        namespace: word(found.namespace[at]),
        kind: word(found.kind[at]),
        protocol: word(found.protocol[at]),
        port: found.port[at] ?? null,
        server: word(found.server[at]),
        scope: word(found.scope[at]),
        column: columnOf(word(found.scope[at])),
        rule: word(found.rule[at]),
        via: word(found.via[at]),
        candidates: found.candidates[at] ?? [],
        candidateCount: found.candidate_count[at] ?? 0,
        tx: found.tx[at] ?? 0,
        rx: found.rx[at] ?? 0,
        first: found.first[at] ?? 0,
        last: found.last[at] ?? 0,
      };
      const key = [address, found.local[at], one.namespace, one.name, one.protocol, one.port, one.server].join('|');
      let whole = `${key}|${one.scope}|${one.rule}|${one.via}`;
      // The same peer may count in several ways.
      while (used.has(whole)) whole += '+';
      used.add(whole);
      return { ...one, key: whole, ...this.rates(whole, one.tx, one.rx, message.ts) };
    });
  }

  private rates(key: string, tx: number, rx: number, ts: number): { txRate: number; rxRate: number } {
    const before = this.before.get(key);
    if (before && ts - before.ts < LEAST_S) return { txRate: before.txRate, rxRate: before.rxRate };
    const passed = before ? ts - before.ts : 0;
    const txRate = before ? Math.max(0, tx - before.tx) / passed : Number.NaN;
    const rxRate = before ? Math.max(0, rx - before.rx) / passed : Number.NaN;
    this.before.set(key, { tx, rx, ts, txRate, rxRate });
    return { txRate, rxRate };
  }
}

/** What a peer is called: its name, or its address. */
export function peerName(peer: Pick<Peer, 'namespace' | 'name' | 'address' | 'rule'>): string {
  if (peer.name) return peer.namespace ? `${peer.namespace}/${peer.name}` : peer.name;
  return peer.address || (peer.rule === 'not-ip' ? 'not IP' : peer.rule === 'folded' ? 'other peers' : 'not known');
}

/** The rate where it is known and anything passed since the session began. */
export function sumRates(peers: readonly Peer[]): number {
  return peers.reduce((sum, peer) => sum + (peer.txRate || 0) + (peer.rxRate || 0), 0);
}
