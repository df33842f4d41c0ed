// Written by `make types-ts` from services/flows/live_message.py: change that instead.

/**
 * The messages that the WebSocket sends: fields, units and how "not known" is written, in one place.
 *
 * The API sends JSON objects with a type `t`:
 *
 * `snapshot`  everything; replaces what the client has
 * `delta`     what changed since the message `base`, which the client has acknowledged
 * `pod`       the watched pod: its scopes and peers
 *
 * All numbers are absolute, never increments, so a message that was skipped does no harm. `epoch` and
 * `seq` are the two halves of a tick id; several messages may have the same `seq`, since rates fade and
 * agents fall silent without any tick.
 *
 * Units: bytes, packets and attempts, or those per second where a field says that it is a rate; times are
 * Unix seconds. Not known: null among numbers and times, "" among texts, an empty list among lists. A rate
 * is null where the agent of the row's node does not report; 0 always means that nothing passed.
 *
 * Rows travel by column: every list in `rows` has one number per id in `i`, every list in `pods`, `add`,
 * `nodes`, `scopes` and `peers` one value per entry. Texts that many entries share are numbers: places in
 * the list `words` of the same message, of which the first one is "".
 *
 * The TypeScript of the dashboard is written from this file by `make types-ts`.
 */

/** The version that a client asks for with `v=`; another one is closed with `CLOSE_VERSION`. */
export const PROTOCOL = 1 as const;

/** Close code for a client that asked for another version of the protocol: it must be loaded anew. */
export const CLOSE_VERSION = 4001 as const;

/** Close code for a client that acknowledged nothing for too long; it may come back. */
export const CLOSE_SILENT = 4002 as const;

/** Close code for a client whose message was not understood; the reason says why. */
export const CLOSE_WRONG = 1008 as const;

/**
 * Numbers of a row, and of all rows together in `tot`, in this order.
 *
 * Rates in bytes per second from the pod's view, the columns of the dashboard with both directions unless
 * they say which; `syn` are connection attempts per second, `total` the bytes since the session began, never null.
 */
export const COLUMNS = ["tx", "rx", "local", "cross", "private", "internet_tx", "internet_rx", "other", "syn", "total"] as const;

/** What an entry of the timeline counts after its time, in this order. */
export const TIMELINE_COLUMNS = ["local", "cross", "private", "internet", "other"] as const;

/** Seconds that an entry of the timeline lasts. */
export const TIMELINE_STEP_S = 5 as const;

/** Entries that the timeline has at most: 15 minutes. */
export const TIMELINE_STEPS = 180 as const;

/** Entries of a spark, each as long as one of the timeline: the last minute. */
export const SPARK_STEPS = 12 as const;

/** Names of scopes; bit n of a pod's `scopes` stands for the nth. */
export const SCOPE_NAMES = ["same-pod", "same-node", "same-zone", "cross-zone", "cross-region", "cluster", "service", "node", "infra", "cluster-unresolved", "private", "internet", "other", "unknown"] as const;

/** One number per entry of `COLUMNS`. */
export type Numbers = readonly (number | null)[];

/** A place in the list `words` of the same message. */
export type Word = number;

/** A Unix time. */
export type Seconds = number;

/** What rows are called and where they run, one value per pod. */
export interface PodColumns {
  /** The row's number, which stays the same for the session's epoch. */
  id: number[];
  ns: Word[];
  name: string[];
  node: Word[];
  zone: Word[];
  region: Word[];
  /** Such as `Deployment`. */
  owner_kind: Word[];
  /** The owner's name, in the pod's namespace. */
  owner: Word[];
  /** Each is `key=value`. */
  labels: Word[][];
  /** The pod's addresses, its first one first. */
  ips: string[][];
  /** The interface on the node that is watched. */
  iface: string[];
  /** How much is seen of its traffic: `full`, `egress-only`, `ingress-only` or `none`. */
  coverage: Word[];
  /** Scopes in which it had traffic since the session began, as bits; see `SCOPE_NAMES`. */
  scopes: number[];
  started: (Seconds | null)[];
  /** When it went; null while it runs. */
  ended: (Seconds | null)[];
}

/** The nodes whose agents ever reported, one value per node, by name. */
export interface NodeColumns {
  name: string[];
  zone: string[];
  region: string[];
  /** Whether its agent reported within the last seconds. */
  live: boolean[];
  /** The last report of an agent that is not live; null where it is, and where that was minutes ago. */
  reported: (Seconds | null)[];
  /** How its agent captures, such as `tcx`. */
  source: string[];
  /** How many interfaces its agent watches. */
  interfaces: number[];
}

/** One number per row; see `COLUMNS`. */
export interface RowColumns {
  tx: (number | null)[];
  rx: (number | null)[];
  local: (number | null)[];
  cross: (number | null)[];
  private: (number | null)[];
  internet_tx: (number | null)[];
  internet_rx: (number | null)[];
  other: (number | null)[];
  syn: (number | null)[];
  total: number[];
}

/** Bytes of each row in the last minute, both directions. */
export interface Sparks {
  /** The end of the last step of all; they last `TIMELINE_STEP_S`, and the last one is not over yet. */
  until: Seconds;
  /** `SPARK_STEPS` numbers, or none for a row without traffic; one list per id in `i`. */
  of: number[][];
}

/** What every snapshot and delta says of the whole. */
export interface Whole {
  epoch: number;
  seq: number;
  /** When the last tick was committed. */
  ts: Seconds;
  /** When the session's totals began. */
  started: Seconds;
  /** Nodes whose agents report, and all nodes. */
  reporting: [number, number];
  /** Sums over all rows, those that are not shown among them; see `COLUMNS`. */
  tot: Numbers;
  /** Why what is shown is not current, and what to do; "" where it is. */
  problem: string;
}

/** Everything; replaces what the client has. */
export interface Snapshot extends Whole {
  t: "snapshot";
  v: number;
  /** `COLUMNS` as the server has them. */
  columns: readonly string[];
  words: string[];
  nodes: NodeColumns;
  pods: PodColumns;
  i: number[];
  rows: RowColumns;
  /**
   * The last 15 minutes, the oldest first: `[Unix second, bytes per entry of TIMELINE_COLUMNS …]`.
   *
   *     In a step that is missing nothing was reported.
   */
  timeline: number[][];
  sparks: Sparks;
}

/** What changed since `base`. */
export interface Delta extends Whole {
  t: "delta";
  base: number;
  words: string[];
  /** All nodes anew; null where nothing of them changed. */
  nodes: NodeColumns | null;
  i: number[];
  rows: RowColumns;
  /** Pods that came, and all fields of those of which any changed. */
  add: PodColumns;
  /** Ids of rows that are shown no more; those in `add` are to be taken after them. */
  gone: number[];
  /** Entries that changed or began, with all their numbers; the oldest ones of more than `TIMELINE_STEPS` go. */
  timeline: number[][];
}

/** The scopes of one pod's traffic, one value per scope that had any. */
export interface ScopeColumns {
  scope: string[];
  /** Bytes since the session began. */
  tx: number[];
  rx: number[];
  /** Of both directions, since the session began. */
  packets: number[];
  /** Bytes per second. */
  tx_rate: (number | null)[];
  rx_rate: (number | null)[];
}

/** One pod's peers, one value per peer, protocol, port and rule; those with the most bytes first. */
export interface PeerColumns {
  /** "" for what has none: frames that are not IP, and peers beyond the limit added up. */
  address: string[];
  /** The pod's own address, where it is known to have several. */
  local: string[];
  name: string[];
  namespace: Word[];
  /** `pod`, `service`, `node`, `cidr`, or "". */
  kind: Word[];
  protocol: Word[];
  /** The server's port; null where there is none. */
  port: (number | null)[];
  /** Who has that port: `pod`, `peer`, or "" where nobody knows. */
  server: Word[];
  scope: Word[];
  /** Which rule of the ladder gave the scope. */
  rule: Word[];
  /** `ingress` for what came through an ingress controller or gateway, else "". */
  via: Word[];
  /** Pods (`namespace/pod`) that may be behind a Service or node, at most 100. */
  candidates: string[][];
  candidate_count: number[];
  /** Bytes since the session began. */
  tx: number[];
  rx: number[];
  packets: number[];
  first: (Seconds | null)[];
  last: (Seconds | null)[];
}

/** The watched pod. */
export interface WatchedPod {
  t: "pod";
  /** `namespace/pod`, as it was asked for. */
  pod: string;
  epoch: number;
  seq: number;
  ts: Seconds;
  /** "" where no such pod is known. */
  uid: string;
  container: string;
  words: string[];
  scopes: ScopeColumns;
  /** null where they cannot be read; the next message may have them. */
  peers: PeerColumns | null;
  /** Peers beyond those in `peers`. */
  more: number;
}

/** What the server sends. */
export type Message = Snapshot | Delta | WatchedPod;

/**
 * What a client may send, one field or more.
 *
 * A client answers every snapshot and delta with its `seq` as `ack`, and gets the next one only then.
 */
export interface ClientMessage {
  ack?: number;
  /** Messages a second, 1 unless it says otherwise; 0 pauses. */
  hz?: number;
  /** A pod as `namespace/pod`; null ends watching. */
  watch?: string | null;
  /** True begins anew: what came does not fit to what is there. */
  snapshot?: boolean;
}
