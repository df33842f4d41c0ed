// Sends datagrams through a socket as fast as one processor can: GROUP FLOWS FRAME_BYTES SECONDS, from the control
// group of that directory. Prints the packets sent and the nanoseconds of processor time per packet, in which others'
// work has no part. Destination port and the destination's last byte tell flows apart.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <unistd.h>

#include "sending.h"

static int enter(const char *group)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/cgroup.procs", group);
	int file = open(path, O_WRONLY);
	return file < 0 || write(file, "0", 1) != 1 || close(file);
}

int main(int count, char **words)
{
	if (count != 5)
		return 2;
	if (enter(words[1])) {
		perror(words[1]);
		return 1;
	}
	unsigned flows = atoi(words[2]), size = atoi(words[3]) - HEADERS;
	int64_t lasting = atof(words[4]) * 1e9;
	int out = socket(AF_INET, SOCK_DGRAM, 0);
	if (out < 0) {
		perror("socket");
		return 1;
	}
	struct sockaddr_in *to = calloc(flows, sizeof *to);
	for (unsigned flow = 0; flow < flows; flow++) {
		to[flow].sin_family = AF_INET;
		to[flow].sin_port = htons(1024 + flow % PORTS);
		to[flow].sin_addr.s_addr = htonl(0x0a090100 + 1 + flow / PORTS);
	}
	struct mmsghdr messages[AT_ONCE] = { 0 };
	char bytes[2048] = { 0 };
	struct iovec part = { bytes, size };
	int64_t began = nanoseconds(CLOCK_THREAD_CPUTIME_ID), now = began;
	unsigned flow = 0;
	long sent = 0;
	for (; now - began < lasting; now = nanoseconds(CLOCK_THREAD_CPUTIME_ID)) {
		for (int at = 0; at < AT_ONCE; at++) {
			messages[at].msg_hdr = (struct msghdr){ &to[flow], sizeof *to, &part, 1 };
			if (++flow == flows)
				flow = 0;
		}
		send_all(out, messages);
		sent += AT_ONCE;
	}
	printf("%ld %.2f\n", sent, (double)(now - began) / sent);
	return 0;
}
