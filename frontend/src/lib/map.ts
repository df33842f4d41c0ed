/** Who sends how much to whom, made ready for drawing: the largest groups, all others together, and what is outside. */

import { columnOf, MIX_TITLE, type Mix } from './columns';
import { matcherOf, type Term } from './filter';
import type { Group } from './address-bar';
import type { Edge } from './rest';
import type { Flow } from './sankey';

/** Groups with a place of their own as ribbons, and in a matrix. */
export const RIBBON_GROUPS = 12;
export const MATRIX_GROUPS = 40;
/** With more groups than that a matrix is read more easily. */
export const MOST_FOR_RIBBONS = 15;
export const OTHERS = ':others';
/** What belongs to the cluster and is no pod. */
const MACHINERY = ':machinery';
const MACHINERY_SCOPES = [
  'service',
  'node',
  'infra',
  'cluster-unresolved',
  'cluster',
  'same-pod',
  'same-node',
  'same-zone',
];
const REST = ':rest';
const REST_SCOPES = ['other', 'unknown'];

/** Whether a group is of pods; others begin with a colon and carry the name of a scope. */
export function isPods(name: string): boolean {
  return !name.startsWith(':');
}

/** What a group is called on the screen. */
export function groupTitle(name: string): string {
  if (isPods(name)) return name || 'no name';
  const scope = name.slice(1);
  if (scope === 'internet' || scope === 'private') return MIX_TITLE[scope];
  return { [OTHERS]: 'others', [MACHINERY]: 'Services, nodes', [REST]: 'other' }[name] ?? scope;
}

/** The hue of a group that is no pods'; none for pods. */
export function groupColumn(name: string): Mix | null {
  if (name === MACHINERY) return 'local';
  return isPods(name) || name === OTHERS ? null : columnOf(name.slice(1));
}

/** The terms that show what a group has among the pods; none where there are none. */
export function termsOf(by: Group, name: string): string[] {
  if (name === OTHERS || !name) return [];
  if (name === MACHINERY) return MACHINERY_SCOPES.slice(0, 4).map((scope) => `scope:${scope}`);
  if (name === REST) return REST_SCOPES.map((scope) => `scope:${scope}`);
  if (!isPods(name)) return [`scope:${name.slice(1)}`];
  if (by === 'namespace') return [`ns:${name}`];
  if (by === 'workload') return [`owner:${name.slice(name.indexOf('/') + 1)}`];
  return [`node:${name}`];
}

/** What is no pod, in few groups: many of its scopes have hardly any bytes. */
function outsideGroup(name: string): string {
  const scope = name.slice(1);
  if (MACHINERY_SCOPES.includes(scope)) return MACHINERY;
  return REST_SCOPES.includes(scope) ? REST : name;
}

/** Edges that touch what the filter asks for, as far as it says anything about groups. */
export function filtered(edges: readonly Edge[], terms: readonly Term[], by: Group): Edge[] {
  const ends = (edge: Edge): string[] => [edge.from, edge.to].map((end) => end.toLowerCase());
  const pods = (edge: Edge): string[] => ends(edge).filter(isPods);
  const fits = matcherOf<Edge>(
    terms,
    (edge, field) => {
      if (field === 'scope') {
        const scopes = ends(edge)
          .filter((end) => !isPods(end))
          .map((end) => end.slice(1));
        return [...scopes, ...scopes.map(columnOf)];
      }
      if (field === 'ns' && (by === 'namespace' || by === 'workload')) {
        return pods(edge).map((end) => end.split('/')[0] ?? '');
      }
      if (field === 'owner' && by === 'workload') return pods(edge).map((end) => end.slice(end.indexOf('/') + 1));
      return field === 'node' && (by === 'node' || by === 'zone') ? pods(edge) : null;
    },
    (edge) => ends(edge).join(' '),
  );
  return edges.filter(fits);
}

/** What passed between two answers, as rates; what was gone meanwhile counts as nothing. */
export function rates(now: readonly Edge[], before: readonly Edge[], seconds: number): Edge[] {
  const key = (edge: Edge): string => `${edge.from}\n${edge.to}`;
  const known = new Map(before.map((edge) => [key(edge), edge.bytes]));
  return now.map((edge) => ({ ...edge, bytes: Math.max(0, edge.bytes - (known.get(key(edge)) ?? 0)) / seconds }));
}

export interface Drawn {
  flows: Flow[];
  /** Groups in the order in which they stand: those of pods by name, others, then what is outside. */
  order: string[];
  /** Groups of pods that are among the others. */
  folded: number;
}

/**
 * The flows between the `most` largest groups and all others together. `ranks` are the edges by which they are
 * chosen: bytes since the session began, so that a burst moves nobody.
 */
export function drawn(edges: readonly Edge[], ranks: readonly Edge[], most: number): Drawn {
  const sizes = new Map<string, number>();
  for (const { from, to, bytes } of ranks) {
    for (const end of from === to ? [from] : [from, to]) {
      if (isPods(end)) sizes.set(end, (sizes.get(end) ?? 0) + bytes);
    }
  }
  const ranked = [...sizes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const named = new Set(ranked.slice(0, ranked.length > most ? most : ranked.length));
  const group = (name: string): string => (!isPods(name) ? outsideGroup(name) : named.has(name) ? name : OTHERS);
  const flows = new Map<string, Flow>();
  for (const { from, to, bytes } of edges) {
    if (bytes <= 0) continue;
    const [source, target] = [group(from), group(to)];
    const key = `${source}\n${target}`;
    const flow = flows.get(key);
    if (flow) flow.value += bytes;
    else flows.set(key, { from: source, to: target, value: bytes });
  }
  const outside = [':internet', ':private', MACHINERY, REST];
  const folded = ranked.length - named.size;
  return {
    flows: [...flows.values()].sort((a, b) => b.value - a.value),
    order: [...[...named].sort((a, b) => a.localeCompare(b)), ...(folded ? [OTHERS] : []), ...outside],
    folded,
  };
}
