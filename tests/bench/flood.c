// Sends UDP frames as fast as one processor can: INTERFACE DESTINATION_MAC FLOWS FRAME_BYTES SECONDS [peers].
// Prints the frames sent and the nanoseconds per frame. Source port and the destination's last byte tell flows apart,
// with `peers` the destination alone.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>

#include "sending.h"

static void put16(unsigned char *to, unsigned value)
{
	to[0] = value >> 8;
	to[1] = value;
}

static void build(unsigned char *frame, const unsigned char *to, unsigned flow, unsigned size, int peers)
{
	static const unsigned char start[HEADERS] = {
		0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 1, 0,
	};
	memcpy(frame, start, sizeof start);
	memcpy(frame, to, ETH_ALEN);
	put16(frame + 16, size - 14);
	if (peers) {
		frame[31] = 64 + (flow >> 16);
		put16(frame + 32, flow);
		put16(frame + 34, 40000);
	} else {
		frame[33] = 1 + flow / PORTS;
		put16(frame + 34, 1024 + flow % PORTS);
	}
	put16(frame + 36, 9000);
	put16(frame + 38, size - 34);
	unsigned sum = 0;
	for (int at = 14; at < 34; at += 2)
		sum += frame[at] << 8 | frame[at + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	put16(frame + 24, ~(sum + (sum >> 16)));
}

int main(int count, char **words)
{
	unsigned char mac[ETH_ALEN];
	if (count < 6 || sscanf(words[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != ETH_ALEN)
		return 2;
	unsigned flows = atoi(words[3]), size = atoi(words[4]);
	int64_t lasting = atof(words[5]) * 1e9;
	int out = socket(AF_PACKET, SOCK_RAW, 0), on = 1;
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[1]), .sll_protocol = htons(ETH_P_IP) };
	if (out < 0 || bind(out, (void *)&to, sizeof to) || setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on)) {
		perror(words[1]);
		return 1;
	}
	unsigned char *buffer = calloc(flows, size);
	for (unsigned flow = 0; flow < flows; flow++)
		build(buffer + (size_t)flow * size, mac, flow, size, count > 6);
	struct mmsghdr messages[AT_ONCE] = { 0 };
	struct iovec parts[AT_ONCE];
	int64_t began = nanoseconds(CLOCK_MONOTONIC), now = began;
	unsigned flow = 0;
	long sent = 0;
	for (; now - began < lasting; now = nanoseconds(CLOCK_MONOTONIC)) {
		for (int at = 0; at < AT_ONCE; at++) {
			parts[at] = (struct iovec){ buffer + (size_t)flow * size, size };
			messages[at].msg_hdr.msg_iov = &parts[at];
			messages[at].msg_hdr.msg_iovlen = 1;
			if (++flow == flows)
				flow = 0;
		}
		send_all(out, messages);
		sent += AT_ONCE;
	}
	printf("%ld %.2f\n", sent, (double)(now - began) / sent);
	return 0;
}
