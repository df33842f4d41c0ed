// Counts every packet of the links that it is attached to, per flow, and lets all of them pass.
//
// One body, entered once per kind of hook. It reads the outermost headers as
// services/capture/frames.py does, and the two must agree: tests compare them packet by packet.
// Without BTF, CO-RE, loops or global data, so that one object serves every kernel from 5.5 and
// every architecture. Reads of the stack are only of bytes that were written, because kernels
// before 6.3 refuse others to programs that were loaded without CAP_PERFMON.
#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline))
#define swap16(x) __builtin_bswap16(x)
// Has the compiler work a pointer out here, where its offset is a constant. Where several such
// places meet it would be a variable, which the verifier refuses without CAP_PERFMON.
#define FIXED(pointer) asm volatile("" : "+r"(pointer))

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static __u64 (*group)(const void *skb) = (void *)BPF_FUNC_skb_cgroup_id;
static __u32 (*processor)(void) = (void *)BPF_FUNC_get_smp_processor_id;

// What is counted, and where: services/capture/bpf/tables.py has the same shapes in NumPy.
//
// Every processor has tables of its own, so that no two ever write to the same place and no
// atomic operation is needed: the hooks run with softirqs off, one packet at a time. Rows stand
// densely in the order in which their flows came, so that whoever drains copies the first so
// many; buckets, each one line of cache, lead from a flow's hash to its row. All of it lies in
// arrays, whose lookups the kernel compiles to an addition, and which user space has mapped.
// Addresses and ports are in network order; the rest is in the machine's.
struct about { __u16 source_port, destination_port; __u32 attachment; __u8 protocol, meta; __u16 unused; __u32 syns; };
struct counts { __u64 bytes, repeated_header_bytes; __u32 packets, segments; };
struct row4 { __u32 source, destination; struct about about; struct counts counts; };
struct row6 { __u32 source[4], destination[4]; struct about about; struct counts counts; };

// meta: one bit for the direction, then the kind of the row.
#define TO_POD 1
#define NOT_IP (1 << 1)
#define MALFORMED (2 << 1)

// services/flows/delta.py, Malformed
enum { TRUNCATED_LINK = 1, TRUNCATED_VLAN, TRUNCATED_IPV4, TRUNCATED_IPV6, IPV4_VERSION, IPV4_HEADER_LENGTH, IPV6_VERSION, VLAN_DEPTH };

// What the maps are is said where they are made, in sources/kernel.py.
struct map { int unused; };
struct map half SECTION("maps");     // array of one map, regions by processor: the half that is being filled
struct map buckets4 SECTION("maps");
struct map buckets6 SECTION("maps");
struct map rows4 SECTION("maps");
struct map rows6 SECTION("maps");
struct map links SECTION("maps");    // by the low bits of an interface's index; those that found their place taken:
struct map crowded SECTION("maps");  // by the whole index
struct map folded SECTION("maps");   // attachment and direction -> what found no row, per processor

struct table { __u32 first_bucket, bucket_mask, first_row, rows, used, unused; };
struct region { __u64 seed; struct table table4, table6; __u64 unused; };
struct link { __u32 index, attachment; __u16 pod_side, header_bytes, unused[2]; };
struct direction { __u32 attachment, to_pod; };
struct excess { struct counts counts; __u64 syns; };
#define LINKS 4096

// A place holds 0, or a flow's tag and its row.
#define PLACES 8
struct place { __u32 tag, row; };
struct bucket { struct place places[PLACES]; };

INLINE int is_tag(__u16 ethertype) { return ethertype == 0x8100 || ethertype == 0x88a8 || ethertype == 0x9100; }

// What the high half of a word tells apart reaches all of the hash with the next word only. So the
// word of which the low half matters most comes last.
INLINE __u64 mixed(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 32;
}

INLINE void add(struct counts *to, const struct counts *seen)
{
	to->bytes += seen->bytes;
	to->repeated_header_bytes += seen->repeated_header_bytes;
	to->packets += 1;
	to->segments += seen->segments;
}

// A bound that the compiler knows when it unrolls.
#define MOST_WORDS 9

// Adds a packet to its flow's row; `row` is what the row is to be where the flow is new, and its
// first `key` words, of which the last one is half the count of SYNs, tell flows apart. False
// where no place or no row is left. Two flows that share a hash (one pair in 2^31 of a bucket,
// and nobody outside knows the seed) would share the answer false.
INLINE int count(void *buckets, void *rows, struct table *table, __u64 hash, const __u64 *row, int key, int words)
{
	__u32 tag = hash >> 32 | 1, at;
	struct place *place;
	__u64 *known;
#pragma unroll
	for (int choice = 0; choice < 2; choice++) {
		at = table->first_bucket + ((choice ? hash >> 15 : hash) & table->bucket_mask);
		struct bucket *bucket = map_lookup(buckets, &at);
		if (!bucket)
			return 0;
#pragma unroll
		for (int i = 0; i < PLACES; i++) {
			place = &bucket->places[i];
			if (place->tag == tag) {
				FIXED(place);
				goto found;
			}
			// No flow ever leaves, so behind a gap there is none.
			if (!place->tag) {
				FIXED(place);
				goto missing;
			}
		}
	}
	return 0;

found:
	at = place->row;
	known = map_lookup(rows, &at);
	if (!known)
		return 0;
	__u64 differs = (__u32)(known[key - 1] ^ row[key - 1]);
#pragma unroll
	for (int i = 0; i < MOST_WORDS; i++)
		if (i < key - 1)
			differs |= known[i] ^ row[i];
	if (differs)
		return 0;
	((struct about *)(known + key) - 1)->syns += ((struct about *)(row + key) - 1)->syns;
	add((struct counts *)(known + key), (struct counts *)(row + key));
	return 1;

missing:
	if (table->used >= table->rows)
		return 0;
	at = table->first_row + table->used;
	known = map_lookup(rows, &at);
	if (!known)
		return 0;
#pragma unroll
	for (int i = 0; i < MOST_WORDS; i++)
		if (i < words)
			known[i] = row[i];
	table->used++;
	place->tag = tag;
	place->row = at;
	return 1;
}

// The header of IP is at `network` (behind no link header where that is 0). The interface counts
// `beside` bytes of each packet on the wire which the packet as we see it has not. `cut` says that
// the stack has already found out into how many segments it will cut the packet.
INLINE void body(struct __sk_buff *skb, __u32 attachment, int to_pod, __u32 network, __u32 beside, int cut, int of_group)
{
	struct about about = { .attachment = attachment, .meta = to_pod ? TO_POD : 0 };
	struct counts seen = { .bytes = skb->len + beside, .packets = 1, .segments = skb->gso_segs };
	__u32 length = skb->len;

	struct row4 row4 = {};
	// A variable of its own: what stands in memory the verifier does not know, and it would look at
	// the rows of the other family with nothing written to them.
	int is_ipv6 = 0;
	__u16 ethertype;
	if (network) {
		if (length < network) {
			about.destination_port = swap16(TRUNCATED_LINK);
			goto malformed;
		}
		if (load_bytes(skb, network - 2, &ethertype, 2))
			return;
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
	struct row6 row6;
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
		row4.source = ip[3];
		row4.destination = ip[4];
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
		is_ipv6 = 1;
		about.protocol = byte[6];
		__builtin_memcpy(&row6, &ip[2], 32);
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
		goto counted;
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
			about.syns = (ends[13] & 0x12) == 0x02;
		} else if (load_bytes(skb, transport, ends, 4)) {
			goto no_ports;
		}
		__builtin_memcpy(&about.source_port, ends, 4);
		transport += header;
	}
no_ports:
	// What a virtual machine or a packet socket sends has only the size of its segments at first.
	if (!cut && !seen.segments && skb->gso_size)
		seen.segments = (skb->len - transport + skb->gso_size - 1) / skb->gso_size;
	if (!seen.segments)
		seen.segments = 1;
	seen.repeated_header_bytes = (__u64)(seen.segments - 1) * (transport + beside);
	goto counted;

malformed:
	about.meta |= MALFORMED;

counted:
	if (!seen.segments)
		seen.segments = 1;
	__u32 first = 0, cpu = processor();
	void *regions = map_lookup(&half, &first);
	struct region *region = regions ? map_lookup(regions, &cpu) : 0;
	if (region) {
		const __u64 *word = (const __u64 *)&about;
		__u64 ports = word[0], hash = mixed(region->seed, (__u32)word[1]);
		if (is_ipv6) {
			row6.about = about;
			row6.counts = seen;
			word = (const __u64 *)&row6;
			hash = mixed(mixed(mixed(mixed(hash, word[0]), word[1]), word[2]), word[3]);
			if (count(&buckets6, &rows6, &region->table6, mixed(hash, ports), word, 6, 9))
				return;
		} else {
			row4.about = about;
			row4.counts = seen;
			word = (const __u64 *)&row4;
			hash = mixed(mixed(hash, word[0]), ports);
			if (count(&buckets4, &rows4, &region->table4, hash, word, 3, 6))
				return;
		}
	}
	struct direction direction = { .attachment = about.attachment, .to_pod = about.meta & TO_POD };
	struct excess *excess = map_lookup(&folded, &direction);
	if (!excess && of_group) {
		// Of a control group that user space has not heard of.
		struct direction nobodys = { .attachment = 0, .to_pod = direction.to_pod };
		excess = map_lookup(&folded, &nobodys);
	}
	if (excess) {
		add(&excess->counts, &seen);
		excess->syns += about.syns;
	}
	return;
}

INLINE void of_link(struct __sk_buff *skb, int to_host, int cut)
{
	__u32 index = skb->ifindex;
	__u32 at = index % LINKS;
	struct link *link = map_lookup(&links, &at);
	if (!link || link->index != index)
		link = map_lookup(&crowded, &index);
	if (!link)
		return;
	// Frames that the host's side sends are what the pod receives, and the other way round. A tag
	// that was taken out before we see the frame was counted by the interface that received it.
	body(skb, link->attachment, !to_host != !!link->pod_side, link->header_bytes, skb->vlan_present && to_host ? 4 : 0, cut, 0);
}

// A filter on a packet socket: what it returns is how many bytes the socket gets, so none.
#define PACKET_OUTGOING 4
SECTION("socket") int from_socket(struct __sk_buff *skb)
{
	of_link(skb, skb->pkt_type != PACKET_OUTGOING, 1);
	return 0;
}

// Links of tcx, one on each side of an interface; what they return sends the packet on to whatever comes next.
#define NEXT -1
SECTION("tcx/ingress") int from_ingress(struct __sk_buff *skb)
{
	of_link(skb, 1, 1);
	return NEXT;
}

SECTION("tcx/egress") int from_egress(struct __sk_buff *skb)
{
	of_link(skb, 0, 0);
	return NEXT;
}

// At the root of the control groups: every packet of IP that a socket gets or sends, on whatever
// way it came, without its link header. It is counted under the low half of the group's id, which
// is an attachment once user space knows whose it is, and which no two groups share that are there
// at once. Loopback has this index in every network namespace.
#define LOOPBACK 1
#define ETHERNET 14
#define PASS 1
SECTION("cgroup_skb/ingress") int to_socket(struct __sk_buff *skb)
{
	if (skb->ifindex != LOOPBACK)
		body(skb, group(skb), 1, 0, ETHERNET, 1, 1);
	return PASS;
}

SECTION("cgroup_skb/egress") int of_socket(struct __sk_buff *skb)
{
	if (skb->ifindex != LOOPBACK)
		body(skb, group(skb), 0, 0, ETHERNET, 0, 1);
	return PASS;
}

char terms[] SECTION("license") = "GPL";
