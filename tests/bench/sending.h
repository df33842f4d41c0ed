// What both senders have in common.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { AT_ONCE = 64, HEADERS = 42, PORTS = 50000 };

static int64_t nanoseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

// Sends all AT_ONCE of them, waiting where there is no room.
static void send_all(int out, struct mmsghdr *messages)
{
	for (int done = 0; done < AT_ONCE;) {
		int more = sendmmsg(out, messages + done, AT_ONCE - done, 0);
		if (more > 0)
			done += more;
		else if (errno != ENOBUFS && errno != EAGAIN) {
			perror("sendmmsg");
			exit(1);
		}
	}
}
