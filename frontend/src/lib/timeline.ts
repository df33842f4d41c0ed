/** The last 15 minutes of all pods together, in steps of 5 s by column. */

import { MIX } from './columns';
import { TIMELINE_STEPS, TIMELINE_STEP_S } from './live-message';

/** Of a step that has only begun little is known: its rate would be noise. */
const LEAST_S = 2;
const LONGEST_S = TIMELINE_STEPS * TIMELINE_STEP_S;
/** A session that has just begun fills its timeline too. */
const WIDTHS_S = [120, 300];

/** Rates to draw: Unix seconds, and for every column bytes per second (null where nothing was reported). */
export interface Curve {
  /** How much time it spans. */
  seconds: number;
  x: number[];
  y: (number | null)[][];
}

/** Steps by their beginning. */
export class Timeline {
  private steps = new Map<number, readonly number[]>();

  /** Take entries `[second, bytes per column …]`: those that are there are replaced. */
  take(entries: readonly (readonly number[])[]): void {
    for (const [second, ...sizes] of entries) if (second !== undefined) this.steps.set(second, sizes);
    if (this.steps.size <= TIMELINE_STEPS) return;
    const ordered = [...this.steps.keys()].sort((a, b) => a - b);
    for (const second of ordered.slice(0, ordered.length - TIMELINE_STEPS)) this.steps.delete(second);
  }

  /** What to draw at the time `now`: always the whole width, which is that of a round time, so that nothing stretches. */
  curve(now: number): Curve {
    const last = Math.floor(now / TIMELINE_STEP_S) * TIMELINE_STEP_S;
    const x: number[] = [];
    const y: (number | null)[][] = MIX.map(() => []);
    const oldest = Math.min(...this.steps.keys());
    const seconds = WIDTHS_S.find((width) => last - oldest < width) ?? LONGEST_S;
    for (let second = last - seconds + TIMELINE_STEP_S; second <= last; second += TIMELINE_STEP_S) {
      const passed = Math.min(TIMELINE_STEP_S, now - second);
      if (passed < LEAST_S) continue;
      x.push(second + TIMELINE_STEP_S / 2);
      const sizes = this.steps.get(second);
      // Before the first step nobody looked; after it a step without an entry is one without traffic.
      const nothing = second < oldest ? null : 0;
      MIX.forEach((_, at) => y[at]?.push(sizes ? (sizes[at] ?? 0) / passed : nothing));
    }
    return { seconds, x, y };
  }

  /** Bytes per second of a column in the second `second`; 0 where nothing was reported. */
  at(second: number, column: number): number {
    const step = Math.floor(second / TIMELINE_STEP_S) * TIMELINE_STEP_S;
    return (this.steps.get(step)?.[column] ?? 0) / TIMELINE_STEP_S;
  }

  /** The same steps, which no message changes any more. */
  copy(): Timeline {
    const made = new Timeline();
    made.steps = new Map(this.steps);
    return made;
  }
}
