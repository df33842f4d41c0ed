/** The WebSocket: acknowledges, resumes, begins anew after a gap, and comes back by itself. */

import {
  CLOSE_VERSION,
  PROTOCOL,
  type ClientMessage,
  type Delta,
  type Message,
  type Snapshot,
  type WatchedPod,
} from './live-message';

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 15;
/** A server that accepts and says nothing: why may be told at /readyz. */
const PATIENCE_MS = 1500;
const HIDDEN_HZ = 0.2;

/** How things stand: `wait` counts down to the next attempt. */
export type Link =
  | { is: 'connecting'; why: string }
  | { is: 'live' }
  | { is: 'gap' }
  | { is: 'waiting'; wait: number; why: string }
  | { is: 'version'; why: string };

export interface Listener {
  /** Take a message; false where it does not follow what is there. */
  take(message: Snapshot | Delta): boolean;
  watched(message: WatchedPod): void;
  link(link: Link): void;
  /** What the client has, to go on from there; null where it has nothing. */
  cursor(): { epoch: number; seq: number } | null;
}

/** Where the WebSocket of the page at `page` is. */
export function address(page: string, cursor: { epoch: number; seq: number } | null): string {
  const url = new URL('traffic/ws', page);
  url.protocol = url.protocol.replace('http', 'ws');
  url.searchParams.set('v', String(PROTOCOL));
  if (cursor) url.searchParams.set('resume', `${cursor.epoch}:${cursor.seq}`);
  return url.href;
}

/** Seconds before the attempt after `failures` ones: doubled each time, and not all tabs at once. */
export function waitFor(failures: number, random: number): number {
  return Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** failures) + Math.round(random);
}

/** One connection at a time, for as long as the page is open. */
export class Connection {
  private socket: WebSocket | null = null;
  private failures = 0;
  private watching: string | null = null;
  private hidden = false;
  private timer = 0;

  constructor(
    private readonly page: string,
    private readonly listener: Listener,
  ) {}

  /** Connect; at once where it waits for its next attempt. */
  connect(): void {
    clearTimeout(this.timer);
    const socket = new WebSocket(address(this.page, this.listener.cursor()));
    this.socket = socket;
    this.listener.link({ is: 'connecting', why: '' });
    socket.onopen = () => this.opened(socket);
    socket.onmessage = (event: MessageEvent<string>) => this.heard(event.data);
    socket.onclose = (event) => {
      if (socket === this.socket) this.closed(event);
    };
  }

  /** Get the peers of a pod from now on; null ends it. */
  watch(key: string | null): void {
    if (key === this.watching) return;
    this.watching = key;
    this.say({ watch: key });
  }

  /** A tab that nobody sees needs fewer messages. */
  hide(hidden: boolean): void {
    if (hidden === this.hidden) return;
    this.hidden = hidden;
    this.say({ hz: hidden ? HIDDEN_HZ : 1 });
    // Timers of hidden tabs sleep: who comes back shall not wait for them.
    if (!hidden && this.socket === null) this.connect();
  }

  private opened(socket: WebSocket): void {
    if (this.watching !== null) this.say({ watch: this.watching });
    if (this.hidden) this.say({ hz: HIDDEN_HZ });
    this.timer = window.setTimeout(() => void this.askWhy(socket), PATIENCE_MS);
  }

  private async askWhy(socket: WebSocket): Promise<void> {
    const answer = await fetch(new URL('readyz', this.page)).catch(() => null);
    const told = (await answer?.json().catch(() => null)) as { detail?: string } | null;
    if (socket === this.socket && socket.readyState === WebSocket.OPEN) {
      this.listener.link({ is: 'connecting', why: told?.detail ?? '' });
      this.timer = window.setTimeout(() => void this.askWhy(socket), 2 * PATIENCE_MS);
    }
  }

  private heard(text: string): void {
    clearTimeout(this.timer);
    const message = JSON.parse(text) as Message;
    if (message.t === 'pod') return this.listener.watched(message);
    this.failures = 0;
    if (this.listener.take(message)) {
      this.say({ ack: message.seq });
      this.listener.link({ is: 'live' });
    } else {
      this.say({ ack: message.seq, snapshot: true });
      this.listener.link({ is: 'gap' });
    }
  }

  private closed(event: CloseEvent): void {
    clearTimeout(this.timer);
    this.socket = null;
    if (event.code === CLOSE_VERSION) return this.listener.link({ is: 'version', why: event.reason });
    const wait = waitFor(this.failures, Math.random());
    this.failures += 1;
    return this.countDown(wait, event.reason);
  }

  private countDown(wait: number, why: string): void {
    if (wait <= 0) return this.connect();
    this.listener.link({ is: 'waiting', wait, why });
    this.timer = window.setTimeout(() => this.countDown(wait - 1, why), 1000);
  }

  private say(message: ClientMessage): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}
