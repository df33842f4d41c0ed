// What a capturing program in C does with libpcap: whole packets, one call each, flows in a hash table: INTERFACE.
// Prints "ready", and at SIGTERM the packets seen as JSON.
#include <pcap.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 20, BUFFER = 128 << 20 };

struct key {
	uint32_t source, destination;
	uint16_t from, to;
	uint32_t protocol;
};

struct flow {
	struct key key;
	uint64_t packets, bytes;
};

static struct flow *flows;
static pcap_t *handle;
static uint64_t packets;

static void stop(int number)
{
	(void)number;
	pcap_breakloop(handle);
}

static void count(unsigned char *unused, const struct pcap_pkthdr *header, const unsigned char *data)
{
	(void)unused;
	packets++;
	if (header->caplen < 34 || data[12] != 8 || data[13])
		return;
	struct key key = { .protocol = data[23] };
	unsigned at = 14 + (data[14] & 15) * 4;
	memcpy(&key.source, data + 26, 8);
	if (header->caplen >= at + 4)
		memcpy(&key.from, data + at, 4);
	uint64_t ends, about, hash;
	memcpy(&ends, &key, 8);
	memcpy(&about, (char *)&key + 8, 8);
	hash = (ends ^ about * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
	uint32_t place = hash >> 44;
	while (flows[place].packets && memcmp(&flows[place].key, &key, sizeof key))
		place = (place + 1) % PLACES;
	flows[place].key = key;
	flows[place].packets++;
	flows[place].bytes += header->len;
}

int main(int words, char **word)
{
	char error[PCAP_ERRBUF_SIZE];
	flows = calloc(PLACES, sizeof *flows);
	if (words != 2 || !flows || !(handle = pcap_create(word[1], error)))
		return 2;
	pcap_set_snaplen(handle, 65535);
	pcap_set_promisc(handle, 1);
	pcap_set_timeout(handle, 1000);
	pcap_set_buffer_size(handle, BUFFER);
	if (pcap_activate(handle) < 0) {
		pcap_perror(handle, word[1]);
		return 1;
	}
	signal(SIGTERM, stop);
	puts("ready");
	fflush(stdout);
	pcap_loop(handle, -1, count, NULL);
	printf("{\"packets\": %lu}\n", packets);
	return 0;
}
