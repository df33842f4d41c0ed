// Command gopacket captures as the original podloxx did: whole packets through libpcap, each decoded by
// gopacket's default path, counted in a map. Usage: gopacket INTERFACE; SIGTERM ends it.
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcap"
)

type flow struct{ network, transport gopacket.Flow }

type count struct{ packets, bytes uint64 }

func main() {
	handle, err := pcap.OpenLive(os.Args[1], 65536, true, pcap.BlockForever)
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	packets := gopacket.NewPacketSource(handle, handle.LinkType()).Packets()
	flows := map[flow]*count{}
	seen := 0
	fmt.Println("ready")
	for {
		select {
		case packet := <-packets:
			seen++
			var key flow
			if network := packet.NetworkLayer(); network != nil {
				key.network = network.NetworkFlow()
			}
			if transport := packet.TransportLayer(); transport != nil {
				key.transport = transport.TransportFlow()
			}
			// The original asks for each of the layers that it knows.
			packet.Layer(layers.LayerTypeTCP)
			packet.Layer(layers.LayerTypeUDP)
			if flows[key] == nil {
				flows[key] = &count{}
			}
			flows[key].packets++
			flows[key].bytes += uint64(packet.Metadata().Length)
		case <-stop:
			fmt.Printf("{\"packets\": %d}\n", seen)
			return
		}
	}
}
