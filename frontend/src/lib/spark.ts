/** A sparkline as the path of an SVG. */

/** Units of the path to a step: whole numbers are written and read much faster than fractions. */
const STEP = 10;
/** Units from the lowest to the highest value. */
const HEIGHT = 200;
/** Room for half of the line's width above and below. */
const EDGE = 6;
const BEYOND = 40;

/** The box that `area` of `steps` values fills. */
export function viewBox(steps: number): string {
  return `0 ${-EDGE} ${Math.max(1, steps - 1) * STEP} ${HEIGHT + 2 * EDGE}`;
}

/**
 * The outline of `values`, one a step, `most` at the top; it is closed outside of the box, so that its line is seen at
 * the top alone, and one path is enough for line and area.
 */
export function area(values: ArrayLike<number>, most: number): string {
  const { length } = values;
  if (length < 2 || !(most > 0)) return '';
  const scale = HEIGHT / most;
  const first = Math.round(HEIGHT - (values[0] ?? 0) * scale);
  let text = `M${-BEYOND} ${first}`;
  for (let at = 0; at < length; at += 1) text += ` ${at * STEP} ${Math.round(HEIGHT - (values[at] ?? 0) * scale)}`;
  return `${text}H${(length - 1) * STEP + BEYOND}V${HEIGHT + BEYOND}H${-BEYOND}Z`;
}

/** The largest of `values`; 0 of none. */
export function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let at = 0; at < values.length; at += 1) most = Math.max(most, values[at] ?? 0);
  return most;
}
