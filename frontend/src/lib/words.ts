/** Sentences for what the messages say in one word: rules, kinds, coverage, ports. */

const RULES: Record<string, string> = {
  'cloud-metadata': "The cloud's metadata address",
  'node-local-dns': 'The DNS cache on the node',
  unspecified: 'The unspecified address',
  loopback: 'A loopback address',
  'link-local': 'A link-local address: it goes no further than the node',
  multicast: 'A multicast address',
  broadcast: 'A broadcast address',
  'own-address': "The pod's own address",
  'ambiguous-window': 'Two pods had this address within the window: nobody can tell which one it was',
  'pod-same-node': 'A pod on the same node',
  'pod-same-zone': 'A pod in the same zone',
  'pod-cross-zone': 'A pod in another zone of the region',
  'pod-cross-region': 'A pod in another region',
  pod: 'A pod whose place is not known',
  service: 'The address of a Service',
  'api-server': 'The API server of the cluster',
  node: 'The address of a node',
  'node-gateway': "The gateway of the node's pods",
  'user-cidr': 'A range that you named',
  'cluster-range': 'In the ranges of the cluster, but nobody has this address',
  'private-range': 'A private range (RFC 1918, carrier-grade NAT, unique local)',
  'private-cidr': 'A range that you named as private',
  public: 'A public address',
  'not-ip': 'Frames that are not IP, such as ARP',
  malformed: 'Packets that could not be read',
  folded: 'Flows beyond the bound of the table, added up',
  'agent-gap': 'Passed while no agent was there: only its size is known',
  'hidden-datapath': "Passed the watched end of the pod's link by: only its size is known, by the pod's own interface",
  'no-socket':
    "Counted by the pod's interface, and by no socket of it: ARP, the kernel's own answers, forwarded packets",
  'seen-at-sender': 'A pod on the same node, counted where that one sent it',
};

/** Why a peer has its scope. */
export function ruleSentence(rule: string): string {
  return RULES[rule] ?? rule;
}

const COVERAGE: Record<string, string> = {
  full: 'all traffic is seen',
  'egress-only': 'only what it sends is seen',
  'ingress-only': 'only what it receives is seen',
  none: 'nothing of it is seen',
};

/** How much of a pod is seen. */
export function coverageSentence(coverage: string): string {
  return COVERAGE[coverage] ?? coverage;
}

/** What helps where less than all of a pod is seen; empty where all is. */
export function coverageHint(coverage: string | null | undefined): string {
  if (!coverage || coverage === 'full' || coverage === 'both') return '';
  return (
    'The network of its node hands packets over past the interface that is watched. With --capture cgroup they are ' +
    'counted at sockets, both directions with their peers; that needs NET_ADMIN and the control groups of each node.'
  );
}

const PORTS: Record<number, string> = {
  20: 'ftp-data',
  21: 'ftp',
  22: 'ssh',
  25: 'smtp',
  53: 'dns',
  67: 'dhcp',
  68: 'dhcp',
  80: 'http',
  110: 'pop3',
  123: 'ntp',
  143: 'imap',
  161: 'snmp',
  179: 'bgp',
  389: 'ldap',
  443: 'https',
  465: 'smtps',
  514: 'syslog',
  587: 'submission',
  636: 'ldaps',
  853: 'dns-tls',
  993: 'imaps',
  1433: 'mssql',
  1521: 'oracle',
  1883: 'mqtt',
  2049: 'nfs',
  2379: 'etcd',
  2380: 'etcd-peer',
  3000: 'grafana',
  3306: 'mysql',
  4317: 'otlp',
  4318: 'otlp-http',
  5432: 'postgres',
  5671: 'amqps',
  5672: 'amqp',
  6379: 'redis',
  6443: 'kube-api',
  8080: 'http-alt',
  8443: 'https-alt',
  8883: 'mqtts',
  9042: 'cassandra',
  9090: 'prometheus',
  9092: 'kafka',
  9093: 'alertmanager',
  9100: 'node-exporter',
  9200: 'elasticsearch',
  10250: 'kubelet',
  11211: 'memcached',
  15672: 'rabbitmq',
  26257: 'cockroach',
  27017: 'mongodb',
};

/** What usually has a port; empty where nothing is usual. */
export function portName(port: number | null): string {
  return (port !== null && PORTS[port]) || '';
}

/** A port with its protocol: "443/tcp"; "tcp" without a port. */
export function portText(protocol: string, port: number | null): string {
  return [port || '', protocol].filter(Boolean).join('/');
}
