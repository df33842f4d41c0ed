/** The timeline as a stack: what uPlot draws, and where the names of its layers stand. */

import { MIX } from './columns';
import type { Curve } from './timeline';

type Values = (number | null)[];

/** `[x, all layers, …, the lowest layer]`: each layer is drawn over those below and above it together. */
export function stacked(curve: Curve): [number[], ...Values[]] {
  const sums: Values[] = [];
  let below: Values = curve.x.map(() => 0);
  for (const layer of curve.y) {
    below = layer.map((value, at) => (value === null ? null : value + (below[at] ?? 0)));
    sums.push(below);
  }
  return [curve.x, ...sums.reverse()];
}

/** The columns in the order in which `stacked` has them. */
export const LAYERS = [...MIX].reverse();

export interface Label {
  column: (typeof MIX)[number];
  value: number;
  /** The middle of the layer, in bytes per second from the ground. */
  middle: number;
}

/** What passed of each column at the point `at` of a curve, and where its layer lies. */
export function labelsAt(curve: Curve, at: number): Label[] {
  let ground = 0;
  return MIX.map((column, layer) => {
    const value = curve.y[layer]?.[at] ?? 0;
    ground += value;
    return { column, value, middle: ground - value / 2 };
  });
}

/** Heights for labels that want to be at `wanted` (from the top, upwards order): `gap` apart, within 0 and `height`. */
export function apart(wanted: readonly number[], gap: number, height: number): number[] {
  const order = wanted.map((_, at) => at).sort((a, b) => (wanted[a] as number) - (wanted[b] as number) || b - a);
  const placed: number[] = [...wanted];
  let least = gap / 2;
  for (const at of order) {
    placed[at] = Math.max(wanted[at] as number, least);
    least = (placed[at] as number) + gap;
  }
  let most = height - gap / 2;
  for (const at of order.reverse()) {
    placed[at] = Math.min(placed[at] as number, most);
    most = (placed[at] as number) - gap;
  }
  return placed;
}
