/** Reads an answer of the API again and again while a view shows it. */

import { get } from './rest';
import { app } from './state.svelte';

export interface Polled<T> {
  /** The last answer; null before the first one. */
  readonly data: T | null;
  /** The one before it, and the seconds between the two: what passed meanwhile can be told. */
  readonly before: T | null;
  readonly passed: number;
  readonly problem: string;
}

/** The answer behind `path`, at most every `everyS` seconds; to be called while a component is made. */
export function polled<T>(path: () => string, everyS: number): Polled<T> {
  let kept = $state.raw<{ data: T | null; before: T | null; passed: number }>({ data: null, before: null, passed: 0 });
  let problem = $state('');
  let read = 0;

  $effect(() => {
    const from = path();
    const stopped = new AbortController();
    let timer = 0;
    kept = { data: null, before: null, passed: 0 };
    read = 0;
    const next = async (): Promise<void> => {
      if (!(read && (document.hidden || app.paused))) {
        try {
          const data = await get<T>(from, stopped.signal);
          const now = performance.now();
          kept = { data, before: kept.data, passed: read ? (now - read) / 1000 : 0 };
          read = now;
          problem = '';
        } catch (error) {
          if (stopped.signal.aborted) return;
          problem = error instanceof TypeError ? 'the API does not answer' : String((error as Error).message);
        }
      }
      timer = window.setTimeout(() => void next(), everyS * 1000);
    };
    void next();
    return () => {
      stopped.abort();
      clearTimeout(timer);
    };
  });

  return {
    get data() {
      return kept.data;
    },
    get before() {
      return kept.before;
    },
    get passed() {
      return kept.passed;
    },
    get problem() {
      return problem;
    },
  };
}
