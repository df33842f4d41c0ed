/** Everything that the messages told: taken one after the other, shown by the views. */

import { FIELDS, MIX, type Field } from './columns';
import { COLUMNS, type Delta, type NodeColumns, type Snapshot, type Whole } from './live-message';
import { Rows, SPARK_S } from './rows';
import { Timeline } from './timeline';

export const NO_NODES: NodeColumns = {
  name: [],
  zone: [],
  region: [],
  live: [],
  reported: [],
  source: [],
  interfaces: [],
};

type Totals = Record<Field, number>;

/** What is known of all traffic. */
export class Traffic {
  epoch = 0;
  seq = 0;
  ts = 0;
  started = 0;
  reporting: readonly [number, number] = [0, 0];
  problem = '';
  nodes: NodeColumns = NO_NODES;
  rows = new Rows();
  timeline = new Timeline();
  totals = unknownTotals();
  /** The last minute of every field of all pods together, and of the number of pods. */
  private recent = new Map<Field | 'pods', number[]>();
  private second = 0;

  /** Take a message; false where it does not follow what is here. */
  take(message: Snapshot | Delta): boolean {
    if (message.t === 'snapshot') this.begin(message);
    else if (message.epoch !== this.epoch || message.base !== this.seq) return false;
    else this.change(message);
    return true;
  }

  /** The last minute of one field, a value a second, the oldest first. */
  lately(field: Field | 'pods'): readonly number[] {
    return this.recent.get(field) ?? [];
  }

  /** The same, which no message changes any more. */
  copy(): Traffic {
    const made = new Traffic();
    Object.assign(made, this);
    made.rows = this.rows.copy();
    made.timeline = this.timeline.copy();
    made.totals = { ...this.totals };
    made.recent = new Map([...this.recent].map(([field, values]) => [field, [...values]]));
    return made;
  }

  private begin(message: Snapshot): void {
    this.rows = new Rows();
    this.timeline = new Timeline();
    this.timeline.take(message.timeline);
    this.nodes = message.nodes;
    this.rows.add(message.pods, message.words);
    this.rows.update(message.i, message.rows);
    this.whole(message);
    this.rows.recall(message.i, message.sparks, message.ts);
    this.recall();
  }

  private change(message: Delta): void {
    this.rows.remove(message.gone);
    this.rows.add(message.add, message.words);
    this.rows.update(message.i, message.rows);
    this.timeline.take(message.timeline);
    if (message.nodes) this.nodes = message.nodes;
    this.whole(message);
    this.rows.sample(message.ts);
    this.sample();
  }

  private whole(message: Whole): void {
    this.epoch = message.epoch;
    this.seq = message.seq;
    this.ts = message.ts;
    this.started = message.started;
    this.reporting = message.reporting;
    this.problem = message.problem;
    COLUMNS.forEach((name, at) => (this.totals[name] = message.tot[at] ?? Number.NaN));
    this.totals.rate = this.totals.tx + this.totals.rx;
    this.totals.internet = this.totals.internet_tx + this.totals.internet_rx;
  }

  /** The minute before a snapshot, from its timeline. */
  private recall(): void {
    this.second = Math.floor(this.ts);
    const seconds = Array.from({ length: SPARK_S - 1 }, (_, at) => this.second - SPARK_S + 1 + at);
    const column = (at: number): number[] => seconds.map((second) => this.timeline.at(second, at));
    this.recent = new Map();
    MIX.forEach((name, at) => this.recent.set(name, column(at)));
    this.recent.set(
      'rate',
      seconds.map((second) => MIX.reduce((sum, _, at) => sum + this.timeline.at(second, at), 0)),
    );
    this.push();
  }

  private sample(): void {
    const now = Math.floor(this.ts);
    for (; this.second < now; this.second += 1) this.push();
  }

  private push(): void {
    for (const field of [...FIELDS, 'pods'] as const) {
      const values = this.recent.get(field) ?? [];
      values.push(field === 'pods' ? this.rows.size : this.totals[field] || 0);
      if (values.length > SPARK_S) values.splice(0, values.length - SPARK_S);
      this.recent.set(field, values);
    }
  }
}

function unknownTotals(): Totals {
  return Object.fromEntries(FIELDS.map((field) => [field, Number.NaN])) as Totals;
}
