// Counts every packet of the links that it is attached to, per flow, and lets all of them pass.
//
// One body, entered once per kind of hook. It reads the outermost headers as
// services/capture/frames.py does, and the two must agree: tests compare them packet by packet.
// Without BTF, CO-RE, loops or global data, so that one object serves every kernel from 5.1 and
// every architecture. Reads of the stack are only of bytes that were written, because kernels
// before 6.3 refuse others to programs that were loaded without CAP_PERFMON.
#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline))
#define swap16(x) __builtin_bswap16(x)

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static __u32 (*processor)(void) = (void *)BPF_FUNC_get_smp_processor_id;

// Keys and values as services/capture/sources/ebpf.py reads them. Addresses and ports are in
// network order; the rest is in the machine's. The processor is part of the key, so that no two
// processors ever count in the same place and no atomic operation is needed.
struct ends4 { __u32 source, destination; };
struct ends6 { __u32 source[4], destination[4]; };
struct about { __u16 source_port, destination_port; __u32 attachment; __u16 processor; __u8 protocol, meta; };
struct key4 { struct ends4 ends; struct about about; };
struct key6 { struct ends6 ends; struct about about; };
struct value { __u64 bytes, repeated_header_bytes; __u32 packets, segments, syns, unused; };

// meta: one bit for the direction, then the kind of the row.
#define TO_POD 1
#define NOT_IP (1 << 1)
#define MALFORMED (2 << 1)

// services/flows/delta.py, Malformed
enum { TRUNCATED_LINK = 1, TRUNCATED_VLAN, TRUNCATED_IPV4, TRUNCATED_IPV6, IPV4_VERSION, IPV4_HEADER_LENGTH, IPV6_VERSION, VLAN_DEPTH };

// What the maps are is said where they are made, in sources/ebpf.py.
struct map { int unused; };
struct map flows4 SECTION("maps"); // array of one map: the half of a pair that is being filled
struct map flows6 SECTION("maps");
struct map links SECTION("maps");  // interface index -> attachment, and whether the pod's own side is seen
struct map folded SECTION("maps"); // attachment and direction -> what found the flows full, per processor

struct link { __u32 attachment, pod_side; };
struct fold { __u32 attachment, direction; };

INLINE int is_tag(__u16 ethertype) { return ethertype == 0x8100 || ethertype == 0x88a8 || ethertype == 0x9100; }

INLINE void add(struct value *to, const struct value *seen)
{
	to->bytes += seen->bytes;
	to->repeated_header_bytes += seen->repeated_header_bytes;
	to->packets += 1;
	to->segments += seen->segments;
	to->syns += seen->syns;
}

INLINE void count(void *maps, const void *key, const struct about *about, const struct value *seen)
{
	__u32 first = 0;
	void *flows = map_lookup(maps, &first);
	if (!flows)
		return;
	struct value *known = map_lookup(flows, key);
	if (known) {
		add(known, seen);
		return;
	}
	if (map_update(flows, key, seen, BPF_NOEXIST) == 0)
		return;
	struct fold fold = { .attachment = about->attachment, .direction = about->meta & TO_POD };
	struct value *excess = map_lookup(&folded, &fold);
	if (excess)
		add(excess, seen);
}

INLINE int body(struct __sk_buff *skb, __u32 network, int to_host)
{
	__u32 index = skb->ifindex;
	struct link *link = map_lookup(&links, &index);
	if (!link)
		return 0;
	struct about about = { .attachment = link->attachment, .processor = processor() };
	// Frames that the host's side sends are what the pod receives, and the other way round.
	about.meta = !to_host != !!link->pod_side ? TO_POD : 0;

	struct value seen = { .bytes = skb->len, .packets = 1, .segments = skb->gso_segs };
	if (!seen.segments)
		seen.segments = 1;
	__u32 length = skb->len;
	// A tag that was taken out before we see the frame was counted by the interface that received it.
	__u32 tag = skb->vlan_present && to_host ? 4 : 0;
	seen.bytes += tag;

	struct key4 key4 = {};
	__u16 ethertype;
	if (network) {
		if (length < network) {
			about.destination_port = swap16(TRUNCATED_LINK);
			goto malformed;
		}
		if (load_bytes(skb, network - 2, &ethertype, 2))
			return 0;
		ethertype = swap16(ethertype);
	} else {
		// No link header: the version of IP is all that tells.
		__u8 version;
		if (load_bytes(skb, 0, &version, 1)) {
			about.destination_port = swap16(TRUNCATED_LINK);
			goto malformed;
		}
		ethertype = version >> 4 == 6 ? 0x86dd : 0x0800;
	}
#pragma unroll
	for (int tags = 0; tags < 5; tags++) {
		if (!is_tag(ethertype))
			break;
		if (tags == 4) {
			about.destination_port = swap16(VLAN_DEPTH);
			goto malformed;
		}
		if (load_bytes(skb, network + 2, &ethertype, 2)) {
			about.destination_port = swap16(TRUNCATED_VLAN);
			goto malformed;
		}
		ethertype = swap16(ethertype);
		network += 4;
	}

	__u32 transport, header;
	struct key6 key6;
	if (ethertype == 0x0800) {
		__u32 ip[5];
		if (load_bytes(skb, network, ip, 20)) {
			about.destination_port = swap16(TRUNCATED_IPV4);
			goto malformed;
		}
		__u8 *byte = (__u8 *)ip;
		header = (byte[0] & 15) * 4;
		if (byte[0] >> 4 != 4) {
			about.destination_port = swap16(IPV4_VERSION);
			goto malformed;
		}
		if (header < 20) {
			about.destination_port = swap16(IPV4_HEADER_LENGTH);
			goto malformed;
		}
		if (length < network + header) {
			about.destination_port = swap16(TRUNCATED_IPV4);
			goto malformed;
		}
		about.protocol = byte[9];
		key4.ends.source = ip[3];
		key4.ends.destination = ip[4];
		transport = network + header;
		if ((byte[6] & 0x1f) | byte[7])
			goto no_ports;
		// What follows the packet is padding. Segmentation offload may write no length.
		__u32 total = byte[2] << 8 | byte[3];
		if (total && network + total < length)
			length = network + total;
	} else if (ethertype == 0x86dd) {
		__u32 ip[10];
		if (load_bytes(skb, network, ip, 40)) {
			about.destination_port = swap16(TRUNCATED_IPV6);
			goto malformed;
		}
		__u8 *byte = (__u8 *)ip;
		if (byte[0] >> 4 != 6) {
			about.destination_port = swap16(IPV6_VERSION);
			goto malformed;
		}
		about.protocol = byte[6];
		__builtin_memcpy(&key6.ends, &ip[2], 32);
		transport = network + 40;
		__u32 total = byte[4] << 8 | byte[5];
		if (total && transport + total < length)
			length = transport + total;
#pragma unroll
		for (int headers = 0; headers < 8; headers++) {
			__u8 extension[4], next = about.protocol;
			if (next != 0 && next != 43 && next != 60 && next != 135 && next != 139 && next != 140 && next != 51 && next != 44)
				goto ports;
			if (length < transport + 8 || load_bytes(skb, transport, extension, 4))
				goto no_ports;
			about.protocol = extension[0];
			transport += 8;
			if (next == 44) {
				if (extension[2] | (extension[3] & 0xf8))
					goto no_ports;
			} else {
				transport += extension[1] * (next == 51 ? 4 : 8);
			}
		}
	} else {
		about.meta |= NOT_IP;
		about.destination_port = ethertype >= 0x0600 ? swap16(ethertype) : 0;
		key4.about = about;
		count(&flows4, &key4, &about, &seen);
		return 0;
	}

ports:
	if (about.protocol == 6 || about.protocol == 17 || about.protocol == 132) {
		__u8 ends[14];
		if (length < transport + 4)
			goto no_ports;
		header = about.protocol == 6 ? 20 : about.protocol == 17 ? 8 : 12;
		if (about.protocol == 6 && length >= transport + 14) {
			if (load_bytes(skb, transport, ends, 14))
				goto no_ports;
			if (ends[12] >> 4 > 5)
				header = (ends[12] >> 4) * 4;
			seen.syns = (ends[13] & 0x12) == 0x02;
		} else if (load_bytes(skb, transport, ends, 4)) {
			goto no_ports;
		}
		__builtin_memcpy(&about.source_port, ends, 4);
		transport += header;
	}
no_ports:
	seen.repeated_header_bytes = (__u64)(seen.segments - 1) * (transport + tag);
	if (ethertype == 0x0800) {
		key4.about = about;
		count(&flows4, &key4, &about, &seen);
	} else {
		key6.about = about;
		count(&flows6, &key6, &about, &seen);
	}
	return 0;

malformed:
	about.meta |= MALFORMED;
	key4.about = about;
	count(&flows4, &key4, &about, &seen);
	return 0;
}

// A filter on a packet socket: what it returns is how many bytes the socket gets, so none.
#define PACKET_OUTGOING 4
SECTION("socket") int from_socket(struct __sk_buff *skb)
{
	return body(skb, 14, skb->pkt_type != PACKET_OUTGOING);
}

SECTION("socket/ip") int from_socket_without_link_header(struct __sk_buff *skb)
{
	return body(skb, 0, skb->pkt_type != PACKET_OUTGOING);
}

char terms[] SECTION("license") = "GPL";
