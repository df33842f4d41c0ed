/** The view as the page's address has it: filters, sort, selection and range survive a reload and can be sent to others. */

import { isText, sortKey, type Sort } from './order';

export const VIEWS = ['pods', 'map', 'external', 'nodes'] as const;
export type View = (typeof VIEWS)[number];

export const GROUPS = ['namespace', 'workload', 'node', 'zone'] as const;
export type Group = (typeof GROUPS)[number];

export const DRAWINGS = ['ribbons', 'matrix'] as const;
export type Drawing = (typeof DRAWINGS)[number];

export interface Place {
  view: View;
  /** The filter as it was typed. */
  filter: string;
  sort: Sort;
  /** The pod whose drawer is open, as `namespace/name`; empty where it is closed. */
  pod: string;
  /** Unix seconds from and to; null shows what is live. */
  range: readonly [number, number] | null;
  /** What the map puts together. */
  by: Group;
  /** How the map is drawn; "" leaves it to the number of groups. */
  as: Drawing | '';
  /** The map's amounts: per second, now; otherwise since the session began. */
  now: boolean;
  /** External: only those without a name of the user's. */
  unknown: boolean;
  /** External: the column it is sorted by, `-` before it for the largest first. */
  order: string;
}

export const START: Place = {
  view: 'pods',
  filter: '',
  sort: { by: 'rate', down: true },
  pod: '',
  range: null,
  by: 'namespace',
  as: '',
  now: false,
  unknown: false,
  order: '-total',
};

/** The place that a page's query names; what makes no sense is left out. */
export function placeOf(query: string): Place {
  const asked = new URLSearchParams(query);
  const by = sortKey(asked.get('sort') ?? '') ?? START.sort.by;
  const direction = asked.get('dir');
  const range = (asked.get('range') ?? '').split('-').map(Number);
  const [from = 0, to = 0] = range;
  return {
    view: VIEWS.find((one) => one === asked.get('view')) ?? START.view,
    filter: asked.get('q') ?? '',
    sort: { by, down: direction ? direction === 'desc' : !isText(by) },
    pod: asked.get('pod') ?? '',
    range: range.length === 2 && from > 0 && to > from ? [from, to] : null,
    by: GROUPS.find((one) => one === asked.get('by')) ?? START.by,
    as: DRAWINGS.find((one) => one === asked.get('as')) ?? START.as,
    now: asked.get('now') === '1',
    unknown: asked.get('unknown') === '1',
    order: asked.get('order') ?? START.order,
  };
}

/** The query of a place; what is as at the start is left out. */
export function queryOf(place: Place): string {
  const asked = new URLSearchParams();
  if (place.view !== START.view) asked.set('view', place.view);
  if (place.filter.trim()) asked.set('q', place.filter.trim());
  if (place.sort.by !== START.sort.by) asked.set('sort', place.sort.by);
  if (place.sort.down === isText(place.sort.by)) asked.set('dir', place.sort.down ? 'desc' : 'asc');
  if (place.pod) asked.set('pod', place.pod);
  if (place.range) asked.set('range', place.range.join('-'));
  if (place.by !== START.by) asked.set('by', place.by);
  if (place.as) asked.set('as', place.as);
  if (place.now) asked.set('now', '1');
  if (place.order !== START.order) asked.set('order', place.order);
  if (place.unknown) asked.set('unknown', '1');
  const text = asked.toString().replaceAll('%3A', ':').replaceAll('%2F', '/').replaceAll('%3D', '=');
  return text ? `?${text}` : '';
}
