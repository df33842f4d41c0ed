/** Ribbons between senders and receivers: two columns of their own, so that no ribbon runs in a circle. */

import { sankey, sankeyLinkHorizontal } from 'd3-sankey';

/** What runs from one end to the other; `value` is above 0. */
export interface Flow {
  from: string;
  to: string;
  value: number;
}

export interface End {
  name: string;
  value: number;
  x: number;
  y: number;
  height: number;
}

export interface Ribbon extends Flow {
  path: string;
  width: number;
}

export interface Ribbons {
  senders: End[];
  receivers: End[];
  ribbons: Ribbon[];
}

interface Node {
  id: string;
  name: string;
  side: 0 | 1;
  x0?: number;
  y0?: number;
  y1?: number;
  value?: number;
}

interface Link {
  source: string | Node;
  target: string | Node;
  value: number;
  flow: Flow;
  width?: number;
}

export interface Space {
  width: number;
  height: number;
  /** Between two ends. */
  gap: number;
  /** Of an end's bar. */
  bar: number;
}

/** Where everything lies; both columns are in the order of `order`, whatever passes: nothing jumps. */
export function ribbons(flows: readonly Flow[], order: readonly string[], space: Space): Ribbons {
  const place = new Map(order.map((name, at) => [name, at]));
  const side = (which: 0 | 1): Node[] =>
    [...new Set(flows.map((flow) => (which ? flow.to : flow.from)))].map((name) => ({
      id: `${which}${name}`,
      name,
      side: which,
    }));
  const nodes = [...side(0), ...side(1)];
  if (flows.length === 0) return { senders: [], receivers: [], ribbons: [] };
  const most = Math.max(side(0).length, side(1).length);
  const layout = sankey<Node, Link>()
    .nodeId((node) => node.id)
    .nodeAlign((node) => node.side)
    .nodeSort((a, b) => (place.get(a.name) ?? 0) - (place.get(b.name) ?? 0))
    .nodeWidth(space.bar)
    .nodePadding(Math.min(space.gap, (space.height * 0.5) / most))
    .extent([
      [0, 0],
      [space.width, space.height],
    ]);
  const links = flows.map((flow) => ({ source: `0${flow.from}`, target: `1${flow.to}`, value: flow.value, flow }));
  const graph = layout({ nodes, links });
  const draw = sankeyLinkHorizontal<Node, Link>();
  const ends = (which: 0 | 1): End[] =>
    graph.nodes
      .filter((node) => node.side === which)
      .sort((a, b) => (a.y0 ?? 0) - (b.y0 ?? 0))
      .map(({ name, value = 0, x0 = 0, y0 = 0, y1 = 0 }) => ({ name, value, x: x0, y: y0, height: y1 - y0 }));
  return {
    senders: ends(0),
    receivers: ends(1),
    ribbons: graph.links.map((link) => ({ ...link.flow, path: draw(link) ?? '', width: link.width ?? 0 })),
  };
}
