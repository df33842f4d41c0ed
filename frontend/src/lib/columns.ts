/** What a row's numbers are called, and how the columns of scopes look. */

import { COLUMNS, TIMELINE_COLUMNS } from './live-message';

/** A column of scopes: every scope is in exactly one. */
export type Mix = (typeof TIMELINE_COLUMNS)[number];

export const MIX = TIMELINE_COLUMNS;

export const MIX_TITLE: Record<Mix, string> = {
  local: 'Local',
  cross: 'Cross',
  private: 'Private',
  internet: 'Internet',
  other: 'Other',
};

export const MIX_MEANING: Record<Mix, string> = {
  local: 'Stays within a zone of the cluster, or with its Services and nodes',
  cross: 'Between zones or regions of the cluster',
  private: 'Private address ranges outside the cluster',
  internet: 'Everything else outside, and what came through an ingress',
  other: 'Link-local, multicast, and what nobody can tell',
};

/** A number of a row: those of the messages, and sums of them. */
export type Field = (typeof COLUMNS)[number] | 'rate' | 'internet';

export const FIELDS: readonly Field[] = [...COLUMNS, 'rate', 'internet'];

/** Scopes by the column that they are summed into. */
const COLUMN_OF: Record<string, Mix> = {
  'same-pod': 'local',
  'same-node': 'local',
  'same-zone': 'local',
  'cross-zone': 'cross',
  'cross-region': 'cross',
  cluster: 'local',
  service: 'local',
  node: 'local',
  infra: 'local',
  'cluster-unresolved': 'local',
  private: 'private',
  internet: 'internet',
};

/** The column of a scope. */
export function columnOf(scope: string): Mix {
  return COLUMN_OF[scope] ?? 'other';
}
