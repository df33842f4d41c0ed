/** A pod between those that it hears and those that it tells: the ends of the drawer's picture. */

import type { Mix } from './columns';
import { peerName, type Peer } from './peers';
import type { Flow } from './sankey';

/** Peers of each side that stand for themselves. */
const NAMED = 5;
export const OTHERS = 'others';

export interface Neighbours {
  flows: Flow[];
  /** Names in the order in which they stand. */
  order: string[];
  /** The column of scopes that most of a name's traffic is in. */
  columns: Map<string, Mix>;
}

/** What a pod hears (`in`) or tells (`out`), by the bytes of the session. */
export function neighbours(pod: string, peers: readonly Peer[], way: 'in' | 'out'): Neighbours {
  const sizes = new Map<string, number>();
  const columns = new Map<string, Mix>();
  for (const peer of peers) {
    const size = way === 'in' ? peer.rx : peer.tx;
    if (size <= 0) continue;
    const name = peerName(peer);
    sizes.set(name, (sizes.get(name) ?? 0) + size);
    if (!columns.has(name)) columns.set(name, peer.column);
  }
  const ranked = [...sizes].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const named = ranked.slice(0, NAMED);
  const rest = ranked.slice(NAMED).reduce((sum, [, size]) => sum + size, 0);
  if (rest > 0) named.push([OTHERS, rest]);
  columns.set(OTHERS, 'other');
  return {
    flows: named.map(([name, value]) =>
      way === 'in' ? { from: name, to: pod, value } : { from: pod, to: name, value },
    ),
    order: named.map(([name]) => name),
    columns,
  };
}
