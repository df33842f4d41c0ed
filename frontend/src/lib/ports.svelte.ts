/** Which pod talks over which port: no live message tells, so it is asked for while the filter needs it. */

import { NO_PORTS } from './filter';
import { get } from './rest';
import { app } from './state.svelte';

const EVERY_MS = 5000;

/** Keep `app.ports` current while `wanted`. */
export function followPorts(wanted: () => boolean): void {
  $effect(() => {
    if (!wanted()) return;
    const stopped = new AbortController();
    let timer = 0;
    const read = async (): Promise<void> => {
      const found = await get<{ pods: Record<string, number[]> }>('traffic/ports', stopped.signal).catch(() => null);
      if (stopped.signal.aborted) return;
      if (found) app.ports = new Map(Object.entries(found.pods).map(([pod, ports]) => [pod, new Set(ports)]));
      timer = window.setTimeout(() => void read(), EVERY_MS);
    };
    void read();
    return () => {
      stopped.abort();
      clearTimeout(timer);
      app.ports = NO_PORTS;
    };
  });
}
