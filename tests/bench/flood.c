// Sends UDP frames as fast as one processor can: INTERFACE FLOWS FRAME_BYTES COUNT.
// Prints nanoseconds per frame. The source port and the low bits of the destination address tell flows apart.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { AT_ONCE = 64, HEADERS = 42, PORTS = 50000 };

static int64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void put16(unsigned char *to, unsigned value)
{
	to[0] = value >> 8;
	to[1] = value;
}

static void build(unsigned char *frame, unsigned flow, unsigned size)
{
	static const unsigned char start[HEADERS] = {
		2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 1, 0,
	};
	memcpy(frame, start, sizeof start);
	put16(frame + 16, size - 14);
	frame[33] = 1 + flow / PORTS;
	put16(frame + 34, 1024 + flow % PORTS);
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
	if (count != 5)
		return 2;
	unsigned flows = atoi(words[2]), size = atoi(words[3]);
	long frames = atol(words[4]);
	int out = socket(AF_PACKET, SOCK_RAW, 0), on = 1;
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[1]), .sll_protocol = htons(ETH_P_IP) };
	if (out < 0 || bind(out, (void *)&to, sizeof to) || setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on)) {
		perror(words[1]);
		return 1;
	}
	unsigned char *buffer = calloc(flows, size);
	for (unsigned flow = 0; flow < flows; flow++)
		build(buffer + (size_t)flow * size, flow, size);
	struct mmsghdr messages[AT_ONCE] = { 0 };
	struct iovec parts[AT_ONCE];
	int64_t began = nanoseconds();
	unsigned flow = 0;
	for (long sent = 0; sent < frames;) {
		int batch = frames - sent < AT_ONCE ? frames - sent : AT_ONCE;
		for (int at = 0; at < batch; at++) {
			parts[at] = (struct iovec){ buffer + (size_t)flow * size, size };
			messages[at].msg_hdr.msg_iov = &parts[at];
			messages[at].msg_hdr.msg_iovlen = 1;
			if (++flow == flows)
				flow = 0;
		}
		for (int done = 0; done < batch;) {
			int now = sendmmsg(out, messages + done, batch - done, 0);
			if (now > 0)
				done += now;
			else if (errno != ENOBUFS && errno != EAGAIN) {
				perror("sendmmsg");
				return 1;
			}
		}
		sent += batch;
	}
	printf("%.1f\n", (double)(nanoseconds() - began) / frames);
	return 0;
}
