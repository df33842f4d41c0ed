/** What keys do, wherever the focus is. */

import { VIEWS } from './address-bar';
import type { SortKey } from './order';
import { app } from './state.svelte';

/** What `s` goes through. */
const SORTS: readonly SortKey[] = ['rate', 'local', 'cross', 'private', 'internet', 'syn', 'name'];

/** What the view on the screen does on a key. */
export interface Table {
  move(by: number): void;
  open(): void;
  focus(): void;
}

let table: Table | null = null;

/** Let the keys move in a table until the function that comes back is called. */
export function attach(one: Table): () => void {
  table = one;
  return () => {
    if (table === one) table = null;
  };
}

/** Put the focus back into the table. */
export function focusTable(): void {
  table?.focus();
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches('input:not([type=checkbox]), select, textarea');
}

/** Close the topmost thing that is open. */
function escape(event: KeyboardEvent): void {
  if (isTyping(event.target)) {
    (event.target as HTMLElement).blur();
    focusTable();
  } else if (app.place.pod) {
    app.go({ pod: '' });
    focusTable();
  } else if (app.place.range) {
    app.go({ range: null });
  } else if (app.paused) {
    app.pause(false);
  }
}

/** Heed a key. */
export function press(event: KeyboardEvent, help: () => void): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  // Dialogs and menus close by themselves.
  if (document.querySelector('dialog[open], [popover]:popover-open')) return;
  if (event.key === 'Escape') return escape(event);
  if (!app.keys || isTyping(event.target)) return;
  const act = ACTIONS[event.key];
  if (!act) return;
  event.preventDefault();
  act(help);
}

const ACTIONS: Record<string, (help: () => void) => void> = {
  '/': () => document.querySelector<HTMLInputElement>('#filter')?.focus(),
  '?': (help) => help(),
  p: () => app.pause(!app.paused),
  j: () => table?.move(1),
  k: () => table?.move(-1),
  s: () => {
    const next = SORTS[(SORTS.indexOf(app.place.sort.by) + 1) % SORTS.length] as SortKey;
    app.go({ sort: { by: next, down: next !== 'name' } }, true);
  },
  ...Object.fromEntries(VIEWS.map((view, at) => [String(at + 1), () => app.go({ view })])),
};
