/** All pods: numbers in typed arrays by slot, names beside them. */

import { FIELDS, type Field } from './columns';
import { COLUMNS, SPARK_STEPS, TIMELINE_STEP_S, type PodColumns, type RowColumns, type Sparks } from './live-message';

/** Seconds of a row's sparkline, one sample each. */
export const SPARK_S = 60;

export type Numbers = Record<Field, Float64Array>;

/** What a row is called and where it runs. */
export interface Pod {
  id: number;
  ns: string;
  name: string;
  /** `namespace/name`. */
  key: string;
  node: string;
  zone: string;
  region: string;
  ownerKind: string;
  owner: string;
  labels: string[];
  ips: string[];
  iface: string;
  coverage: string;
  /** Scopes in which it had traffic, as bits of `SCOPE_NAMES`. */
  scopes: number;
  /** Unix seconds; 0 where nobody knows. */
  started: number;
  /** When it went, in Unix seconds; 0 while it runs. */
  ended: number;
  /** Everything that a bare word is looked for in, in lower case. */
  text: string;
}

/** Zeroed numbers for `capacity` slots. */
export function emptyNumbers(capacity: number): Numbers {
  return Object.fromEntries(FIELDS.map((field) => [field, new Float64Array(capacity)])) as Numbers;
}

/** Rows by slot: a slot is a place in all arrays, which a pod keeps until it goes. */
export class Rows {
  numbers: Numbers = emptyNumbers(0);
  pods: (Pod | null)[] = [];
  /** One more than the highest slot that was ever in use. */
  slots = 0;
  size = 0;
  /** How many of them have ended. */
  ended = 0;
  /** Changes when pods come, go or are renamed. */
  names = 0;
  private slotOf = new Map<number, number>();
  private keyed = new Map<string, number>();
  private free: number[] = [];
  private capacity = 0;
  private samples = new Float32Array(0);
  /** The last second that has samples. */
  private second = 0;

  /** The slot of a pod by its key; undefined where there is none. */
  slot(key: string): number | undefined {
    return this.keyed.get(key);
  }

  /** The slot of a row's number. */
  slotOfId(id: number): number | undefined {
    return this.slotOf.get(id);
  }

  /** Take pods that are new or were renamed. */
  add(pods: PodColumns, words: readonly string[]): void {
    if (pods.id.length > 0) this.names += 1;
    for (let at = 0; at < pods.id.length; at += 1) {
      const pod = podAt(pods, at, words);
      const slot = this.slotOf.get(pod.id) ?? this.take(pod.id);
      const before = this.pods[slot];
      if (before && before.key !== pod.key && this.keyed.get(before.key) === slot) this.keyed.delete(before.key);
      this.ended += Number(pod.ended > 0) - Number((before?.ended ?? 0) > 0);
      this.pods[slot] = pod;
      this.keyed.set(pod.key, slot);
    }
  }

  /** Forget rows that are shown no more. */
  remove(ids: readonly number[]): void {
    for (const id of ids) {
      const slot = this.slotOf.get(id);
      const pod = slot === undefined ? null : this.pods[slot];
      if (slot === undefined || !pod) continue;
      if (this.keyed.get(pod.key) === slot) this.keyed.delete(pod.key);
      this.slotOf.delete(id);
      this.ended -= Number(pod.ended > 0);
      this.pods[slot] = null;
      for (const field of FIELDS) this.numbers[field][slot] = 0;
      this.samples.fill(0, slot * SPARK_S, (slot + 1) * SPARK_S);
      this.free.push(slot);
      this.size -= 1;
      this.names += 1;
    }
  }

  /** Take numbers; what is null is not known and becomes NaN. */
  update(ids: readonly number[], rows: RowColumns): void {
    const slots = ids.map((id) => this.slotOf.get(id) ?? -1);
    for (const name of COLUMNS) {
      const from = rows[name];
      const into = this.numbers[name];
      for (let at = 0; at < slots.length; at += 1) {
        const slot = slots[at] as number;
        if (slot >= 0) into[slot] = from[at] ?? Number.NaN;
      }
    }
    const { tx, rx, internet_tx, internet_rx, rate, internet } = this.numbers;
    for (const slot of slots) {
      if (slot < 0) continue;
      rate[slot] = (tx[slot] as number) + (rx[slot] as number);
      internet[slot] = (internet_tx[slot] as number) + (internet_rx[slot] as number);
    }
  }

  /** Fill the last minute from what a snapshot tells of it. */
  recall(ids: readonly number[], sparks: Sparks, now: number): void {
    this.second = Math.floor(now);
    const first = sparks.until - SPARK_STEPS * TIMELINE_STEP_S;
    ids.forEach((id, at) => {
      const slot = this.slotOf.get(id);
      const steps = sparks.of[at];
      if (slot === undefined || !steps || steps.length === 0) return;
      for (let second = this.second - SPARK_S + 1; second <= this.second; second += 1) {
        const step = Math.floor((second - first) / TIMELINE_STEP_S);
        this.samples[slot * SPARK_S + (second % SPARK_S)] = (steps[step] ?? 0) / TIMELINE_STEP_S;
      }
      // The last step is not over: what is known of now is better.
      this.samples[slot * SPARK_S + (this.second % SPARK_S)] = this.numbers.rate[slot] || 0;
    });
  }

  /** Take a sample of every row for each second up to `now`. */
  sample(now: number): void {
    const until = Math.floor(now);
    const from = Math.max(this.second + 1, until - SPARK_S + 1);
    for (let second = from; second <= until; second += 1) {
      const at = second % SPARK_S;
      for (let slot = 0; slot < this.slots; slot += 1) {
        this.samples[slot * SPARK_S + at] = this.numbers.rate[slot] || 0;
      }
    }
    this.second = Math.max(this.second, until);
  }

  /** The last minute of a row in bytes per second, the oldest first, written into `into`. */
  spark(slot: number, into: Float32Array): Float32Array {
    const oldest = this.second + 1;
    for (let at = 0; at < SPARK_S; at += 1) {
      into[at] = this.samples[slot * SPARK_S + ((oldest + at) % SPARK_S)] ?? 0;
    }
    return into;
  }

  /** The same rows, which no message changes any more. */
  copy(): Rows {
    const made = new Rows();
    Object.assign(made, this);
    made.numbers = Object.fromEntries(FIELDS.map((field) => [field, this.numbers[field].slice()])) as Numbers;
    made.pods = [...this.pods];
    made.slotOf = new Map(this.slotOf);
    made.keyed = new Map(this.keyed);
    made.free = [...this.free];
    made.samples = this.samples.slice();
    return made;
  }

  private take(id: number): number {
    const slot = this.free.pop() ?? this.slots;
    if (slot >= this.capacity) this.grow();
    this.slots = Math.max(this.slots, slot + 1);
    this.slotOf.set(id, slot);
    this.size += 1;
    return slot;
  }

  private grow(): void {
    this.capacity = Math.max(256, this.capacity * 2);
    for (const field of FIELDS) {
      const wider = new Float64Array(this.capacity);
      wider.set(this.numbers[field]);
      this.numbers[field] = wider;
    }
    const samples = new Float32Array(this.capacity * SPARK_S);
    samples.set(this.samples);
    this.samples = samples;
  }
}

function podAt(pods: PodColumns, at: number, words: readonly string[]): Pod {
  const word = (column: readonly number[]): string => words[column[at] ?? 0] ?? '';
  const ns = word(pods.ns);
  const name = pods.name[at] ?? '';
  const labels = (pods.labels[at] ?? []).map((label) => words[label] ?? '');
  const ips = pods.ips[at] ?? [];
  const pod = {
    id: pods.id[at] as number,
    ns,
    name,
    key: `${ns}/${name}`,
    node: word(pods.node),
    zone: word(pods.zone),
    region: word(pods.region),
    ownerKind: word(pods.owner_kind),
    owner: word(pods.owner),
    labels,
    ips,
    iface: pods.iface[at] ?? '',
    coverage: word(pods.coverage),
    scopes: pods.scopes[at] ?? 0,
    started: pods.started[at] ?? 0,
    ended: pods.ended[at] ?? 0,
  };
  const searched = [pod.key, pod.node, pod.zone, pod.owner, pod.iface, ...ips, ...labels];
  return { ...pod, text: searched.join(' ').toLowerCase() };
}
