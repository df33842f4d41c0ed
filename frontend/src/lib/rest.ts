/** What the API answers besides the live messages, as far as the views read it (`/openapi.json` has all of it). */

export interface Edge {
  from: string;
  to: string;
  bytes: number;
  packets: number;
}

export interface TrafficMap {
  by: string;
  edges: Edge[];
}

export interface Destination {
  address: string;
  name: string;
  scope: string;
  rule: string;
  protocol: string;
  port: number;
  server: '' | 'pod' | 'peer';
  pods: string[];
  podCount: number;
  transmitBytes: number;
  receivedBytes: number;
  firstSeen: string;
  lastSeen: string;
}

export interface External {
  destinations: Destination[];
  more: { destinations: number; transmitBytes: number; receivedBytes: number };
}

export interface Way {
  coveragePercent: number | null;
  countedBytes: number | null;
  capturedBytes: number | null;
  countedPackets: number | null;
  uncoveredPackets: number | null;
  unseenPackets: number | null;
  foldedPackets: number | null;
  agentGapPackets: number | null;
}

export interface Interface {
  interface: string;
  namespace: string | null;
  pod: string | null;
  attached: boolean;
  sides: string | null;
  transmit: Way;
  receive: Way;
}

export interface AgentNode {
  live: boolean;
  lagSeconds: number | null;
  lastReport: string | null;
  source: string | null;
  attachments: number;
  cpuSeconds: number | null;
  memoryMaxBytes: number | null;
  since: string | null;
  lostPackets: Record<string, number> | null;
  /** Interfaces that went while no agent ran. */
  lostInterfaces: number | null;
  unexplainedPackets: number | null;
  transmit: Way | null;
  receive: Way | null;
  interfaces: Interface[];
}

export type AgentNodes = Record<string, AgentNode>;

/** Bytes of one pod in a range of the last 15 minutes; columns without any are left out. */
export interface RangePod {
  transmitBytes: number;
  receivedBytes: number;
  columns: Record<string, { transmitBytes: number; receivedBytes: number }>;
}

export interface RangeAnswer {
  seconds: number;
  pods: Record<string, RangePod>;
}

/** An answer, or why there is none, as the API says it. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await fetch(new URL(path, document.baseURI), signal ? { signal } : {});
  if (answer.ok) return (await answer.json()) as T;
  const told = (await answer.json().catch(() => null)) as { detail?: string } | null;
  throw new Error(told?.detail ?? `the API answers ${answer.status} ${answer.statusText}`);
}
