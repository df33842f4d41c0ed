/** What the components share: the place, the preferences, and the traffic behind a version counter. */

import { placeOf, queryOf, type Place } from './address-bar';
import { Connection, type Link } from './connection';
import type { Sheet } from './download';
import { NO_PORTS, type Ports } from './filter';
import type { Delta, Snapshot, WatchedPod } from './live-message';
import { Watched } from './peers';
import { preference, remember } from './preferences';
import { ranged } from './range';
import { get, type RangeAnswer } from './rest';
import { Traffic } from './traffic';

export type Theme = 'system' | 'light' | 'dark';

/** The names of what is shown by a message; a view with another cursor counts for itself. */
class State {
  /** Counts what was shown: whoever reads the traffic reads this first. */
  version = $state(0);
  link = $state.raw<Link>({ is: 'connecting', why: '' });
  place = $state.raw<Place>(placeOf(location.search));
  paused = $state(false);
  /** The watched pod; another object with each message. */
  watched = $state.raw<{ of: Watched } | null>(null);
  /** Ports by pod, asked for while the filter needs them. */
  ports = $state.raw<Ports>(NO_PORTS);
  /** Why a range could not be read. */
  rangeProblem = $state('');
  bits = $state(preference('bits', 'no') === 'yes');
  theme = $state<Theme>(preference('theme', 'system') as Theme);
  keys = $state(preference('keys', 'yes') === 'yes');
  /** Told to those who cannot see what changed. */
  spoken = $state('');
  /** The pod that the keys are at. */
  cursor = $state('');
  /** What is seen now, for a download. */
  sheet: () => Sheet = () => ({ columns: [], rows: [] });

  private readonly live = new Traffic();
  private frozen: Traffic | null = null;
  private average: Traffic | null = null;
  private readonly connection = new Connection(document.baseURI, {
    take: (message) => this.take(message),
    watched: (message) => this.hear(message),
    link: (link) => (this.link = link),
    cursor: () => (this.live.epoch ? this.live : null),
  });

  /** What tables and tiles show: now, the moment of the pause, or the average of a range. */
  get shown(): Traffic {
    void this.version;
    return this.average ?? this.frozen ?? this.live;
  }

  /** What the timeline shows: a range is chosen on what is live. */
  get line(): Traffic {
    void this.version;
    return this.frozen ?? this.live;
  }

  /** Whether there is anything to show. */
  get known(): boolean {
    return this.shown.epoch !== 0;
  }

  /** Whether what is shown is old. */
  get stale(): boolean {
    return this.known && (this.link.is !== 'live' || this.shown.problem !== '');
  }

  start(): void {
    this.connection.connect();
    document.addEventListener('visibilitychange', () => this.connection.hide(document.hidden));
    addEventListener('popstate', () => {
      this.place = placeOf(location.search);
      this.follow();
    });
    this.follow();
  }

  /** Connect without waiting. */
  hurry(): void {
    this.connection.connect();
  }

  /** Go to another place; `quietly` leaves no step behind for the back button. */
  go(change: Partial<Place>, quietly = false): void {
    const before = queryOf(this.place);
    this.place = { ...this.place, ...change };
    const query = queryOf(this.place);
    if (query !== before) {
      history[quietly ? 'replaceState' : 'pushState'](null, '', query || location.pathname);
    }
    this.follow();
  }

  /** Freeze what is seen; the data goes on arriving. */
  pause(paused: boolean): void {
    this.frozen = paused ? this.live.copy() : null;
    this.paused = paused;
    this.spoken = paused ? 'Paused' : 'Live';
    this.version += 1;
  }

  setBits(bits: boolean): void {
    this.bits = bits;
    remember('bits', bits ? 'yes' : 'no');
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    remember('theme', theme);
  }

  setKeys(keys: boolean): void {
    this.keys = keys;
    remember('keys', keys ? 'yes' : 'no');
  }

  private take(message: Snapshot | Delta): boolean {
    const fits = this.live.take(message);
    if (fits && this.frozen === null) this.version += 1;
    return fits;
  }

  private hear(message: WatchedPod): void {
    const of = this.watched?.of;
    if (this.paused || of?.pod !== message.pod) return;
    of.take(message);
    this.watched = { of };
  }

  private shownRange = '';

  /** Ask for what the place needs. */
  private follow(): void {
    const { pod, range } = this.place;
    if (pod !== (this.watched?.of.pod ?? '')) this.watched = pod ? { of: new Watched(pod) } : null;
    this.connection.watch(pod || null);
    const wanted = range?.join('-') ?? '';
    if (wanted === this.shownRange) return;
    this.shownRange = wanted;
    this.rangeProblem = '';
    if (range) void this.read(range, wanted);
    else this.leave();
  }

  private leave(): void {
    this.average = null;
    this.version += 1;
  }

  private async read(range: readonly [number, number], wanted: string): Promise<void> {
    try {
      const answer = await get<RangeAnswer>(`traffic/range?from=${range[0]}&to=${range[1]}`);
      if (wanted !== this.shownRange) return;
      this.average = ranged(this.live.copy(), answer);
    } catch (error) {
      if (wanted !== this.shownRange) return;
      this.average = null;
      this.rangeProblem = error instanceof Error ? error.message : String(error);
    }
    this.version += 1;
  }
}

export const app = new State();
