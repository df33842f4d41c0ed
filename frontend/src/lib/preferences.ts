/** What the viewer chose, kept by the browser where it lets us. */

const PREFIX = 'podloxx.';

/** A choice that was made before, or the usual one. */
export function preference(name: string, usual: string): string {
  try {
    return localStorage.getItem(PREFIX + name) ?? usual;
  } catch {
    return usual;
  }
}

/** Keep a choice. */
export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // A browser that keeps nothing still shows everything.
  }
}
