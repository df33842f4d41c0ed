/** A sparkline as the path of an SVG. */

/**
 * The outline of `values` in a box of `width` by `height`, `most` at the top; it is closed outside of the box, so that
 * its line is seen at the top alone, and one path is enough for line and area.
 */
export function area(values: ArrayLike<number>, width: number, height: number, most: number): string {
  const line = path(values, width, height, most);
  return (
    line &&
    `${line}H${width + BEYOND}V${height + BEYOND}H${-BEYOND}V${Math.round((height - ((values[0] ?? 0) / most) * (height - 1) - 0.5) * 10) / 10}Z`
  );
}

const BEYOND = 4;

/** The line through `values`, the newest at the right end. */
export function path(values: ArrayLike<number>, width: number, height: number, most: number): string {
  const { length } = values;
  if (length < 2 || !(most > 0)) return '';
  const step = width / (length - 1);
  let text = '';
  for (let at = 0; at < length; at += 1) {
    const y = height - ((values[at] ?? 0) / most) * (height - 1) - 0.5;
    text += `${at === 0 ? 'M' : 'L'}${Math.round(at * step * 10) / 10},${Math.round(y * 10) / 10}`;
  }
  return text;
}

/** The largest of `values`; 0 of none. */
export function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let at = 0; at < values.length; at += 1) most = Math.max(most, values[at] ?? 0);
  return most;
}
