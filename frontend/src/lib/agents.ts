/** Nodes: what their agents say of themselves beside what their pods send and receive. */

import { MIX, type Mix } from './columns';
import type { NodeColumns } from './live-message';
import type { AgentNode, AgentNodes } from './rest';
import type { Rows } from './rows';

export interface NodeRow {
  name: string;
  zone: string;
  live: boolean;
  /** Bytes per second by column; NaN where the agent does not report. */
  mix: Record<Mix, number>;
  rate: number;
  pods: number;
  interfaces: number;
  source: string;
  /** Percent of what the interfaces counted; null where nobody could measure it. */
  up: number | null;
  down: number | null;
  lost: number | null;
  /** Of one processor; NaN before two answers have come. */
  cpu: number;
  memory: number | null;
  lag: number | null;
  agent: AgentNode | null;
}

function emptyMix(value: number): Record<Mix, number> {
  return Object.fromEntries(MIX.map((column) => [column, value])) as Record<Mix, number>;
}

/** Rates by node and column, and how many pods run there. */
function byNode(rows: Rows): Map<string, { mix: Record<Mix, number>; pods: number }> {
  const found = new Map<string, { mix: Record<Mix, number>; pods: number }>();
  rows.pods.forEach((pod, slot) => {
    if (!pod?.node) return;
    let node = found.get(pod.node);
    if (!node) found.set(pod.node, (node = { mix: emptyMix(0), pods: 0 }));
    if (!pod.ended) node.pods += 1;
    for (const column of MIX) node.mix[column] += rows.numbers[column][slot] || 0;
  });
  return found;
}

/** One row per node, by name: those of the live messages, and those that only pods or agents name. */
export function nodeRows(
  rows: Rows,
  nodes: NodeColumns,
  now: AgentNodes | null,
  before: AgentNodes | null,
  passed: number,
): NodeRow[] {
  const sums = byNode(rows);
  const places = new Map(nodes.name.map((name, at) => [name, at]));
  const names = new Set([...nodes.name, ...sums.keys(), ...Object.keys(now ?? {})]);
  return [...names]
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .map((name) => {
      const at = places.get(name) ?? -1;
      const agent = now?.[name] ?? null;
      const live = nodes.live[at] ?? agent?.live ?? false;
      const mix = live ? (sums.get(name)?.mix ?? emptyMix(0)) : emptyMix(Number.NaN);
      const lost = agent?.lostPackets ? Object.values(agent.lostPackets).reduce((sum, count) => sum + count, 0) : null;
      const [cpu, was] = [agent?.cpuSeconds, before?.[name]?.cpuSeconds];
      const known = typeof cpu === 'number' && typeof was === 'number' && passed > 0 && cpu >= was;
      return {
        name,
        zone: nodes.zone[at] ?? '',
        live,
        mix,
        rate: MIX.reduce((sum, column) => sum + mix[column], 0),
        pods: sums.get(name)?.pods ?? 0,
        interfaces: nodes.interfaces[at] ?? agent?.attachments ?? 0,
        source: nodes.source[at] || agent?.source || '',
        up: agent?.transmit?.coveragePercent ?? null,
        down: agent?.receive?.coveragePercent ?? null,
        lost,
        cpu: known ? (cpu - was) / passed : Number.NaN,
        memory: agent?.memoryMaxBytes ?? null,
        lag: agent?.lagSeconds ?? null,
        agent,
      };
    });
}

/** A percentage that says 100 only where it is all. */
export function coverageText(value: number | null): string {
  if (value === null) return '–';
  if (value >= 100) return '100 %';
  return `${(Math.floor(value * 100) / 100).toFixed(2)} %`;
}
