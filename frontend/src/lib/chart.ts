/** uPlot as the timeline uses it: stacked areas, two quiet axes, and a brush for mouse, pen and finger. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { clock, perSecond } from './format';
import { LAYERS, stacked } from './stack';
import type { Curve } from './timeline';

const AXIS_PX = 18;
/** A drag shorter than that is a click. */
const LEAST_DRAG_PX = 5;

export interface Chart {
  show(curve: Curve, range: readonly [number, number] | null): void;
  size(width: number, height: number): void;
  /** Pixels from the top of the chart to a value. */
  y(value: number): number;
  destroy(): void;
}

interface Wishes {
  bits(): boolean;
  /** The point under the pointer; null beside the chart. */
  hover(at: number | null): void;
  range(range: [number, number]): void;
}

function colour(element: HTMLElement, name: string): string {
  return getComputedStyle(element).getPropertyValue(`--${name}`).trim();
}

function options(element: HTMLElement, wishes: Wishes): uPlot.Options {
  const axis = { stroke: colour(element, 'dim'), font: '11px Inter, system-ui, sans-serif', ticks: { show: false } };
  const grid = { stroke: colour(element, 'line'), width: 1 };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [8, 0, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.06)] } },
    axes: [
      {
        ...axis,
        size: AXIS_PX,
        gap: 3,
        space: 90,
        grid: { show: false },
        values: (_, splits) => splits.map((second) => clock(second).slice(0, 5)),
        // Whole minutes: between them nothing would be told by hours and minutes.
        incrs: [60, 120, 300, 600],
      },
      {
        ...axis,
        size: 72,
        gap: 6,
        space: 28,
        grid,
        values: (_, splits) => splits.map((value) => (value ? perSecond(value, wishes.bits()) : '')),
      },
    ],
    series: [{}, ...LAYERS.map((column) => ({ fill: colour(element, column), width: 0, points: { show: false } }))],
    hooks: {
      setCursor: [(plot) => wishes.hover((plot.cursor.left ?? -1) >= 0 ? (plot.cursor.idx ?? null) : null)],
    },
  };
}

/** Let a drag over the chart choose a range. */
function brush(plot: uPlot, chosen: (range: [number, number]) => void): void {
  const { over } = plot;
  let from: number | null = null;
  const at = (event: PointerEvent): number =>
    Math.min(over.clientWidth, Math.max(0, event.clientX - over.getBoundingClientRect().left));
  over.style.touchAction = 'pan-y';
  over.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    from = at(event);
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener('pointermove', (event) => {
    if (from === null) return;
    const to = at(event);
    plot.setSelect({ left: Math.min(from, to), width: Math.abs(to - from), top: 0, height: over.clientHeight }, false);
  });
  const end = (event: PointerEvent): void => {
    if (from === null) return;
    const ends = [from, at(event)].sort((a, b) => a - b) as [number, number];
    from = null;
    if (event.type === 'pointercancel' || ends[1] - ends[0] < LEAST_DRAG_PX) return;
    chosen(ends.map((x) => Math.round(plot.posToVal(x, 'x'))) as [number, number]);
  };
  over.addEventListener('pointerup', end);
  over.addEventListener('pointercancel', end);
}

/** A chart in `element`, with the colours that it has now. */
export function chart(element: HTMLElement, wishes: Wishes): Chart {
  const plot = new uPlot(options(element, wishes), [[]], element);
  brush(plot, wishes.range);
  return {
    show(curve, range) {
      plot.setData(stacked(curve) as unknown as uPlot.AlignedData);
      const [left, right] = range ? range.map((second) => plot.valToPos(second, 'x')) : [0, 0];
      // Sizes as uPlot knows them: asking the page for them would lay it out once more.
      const [width, height] = [plot.bbox.width / devicePixelRatio, plot.bbox.height / devicePixelRatio];
      const [from, to] = [Math.max(0, left ?? 0), Math.min(width, right ?? 0)];
      plot.setSelect({ left: from, width: Math.max(0, to - from), top: 0, height }, false);
    },
    size: (width, height) => plot.setSize({ width, height }),
    y: (value) => plot.valToPos(value, 'y') + plot.bbox.top / devicePixelRatio,
    destroy: () => plot.destroy(),
  };
}
