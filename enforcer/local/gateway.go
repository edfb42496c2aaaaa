package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cordon-security/cordon/internal/durablefile"
	"github.com/cordon-security/cordon/internal/guard"
)

// maxGateways bounds how many gateways are remembered.
const maxGateways = 256

// gateways pins the first MAC that was seen of each default gateway: whoever
// claims the gateway's address later must not become untouchable by that. The
// pins outlive the process, or a restart would be the moment to claim it.
type gateways struct {
	path string
	log  *slog.Logger
	pins map[netip.Addr]guard.MAC
	told map[netip.Addr]guard.MAC
	// unwritten says that the file lacks pins, and failed that this was said.
	unwritten, failed bool
}

// openGateways reads the pins. Those of a damaged file are learned anew.
func openGateways(path string, log *slog.Logger) *gateways {
	g := &gateways{path: path, log: log, pins: map[netip.Addr]guard.MAC{}, told: map[netip.Addr]guard.MAC{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return g
	}
	var pins map[netip.Addr]guard.MAC
	if err == nil {
		err = json.Unmarshal(b, &pins)
	}
	if err != nil {
		log.Warn("the MACs of default gateways that were seen before cannot be read; they are learned anew", "path", path, "err", err)
		return g
	}
	for a, m := range pins {
		if usable(m) && len(g.pins) < maxGateways {
			g.pins[a] = m
		}
	}
	return g
}

// protect pins the MACs of the gateways that now can be, and lists the pins.
func (g *gateways) protect(list []netip.Addr, suspect func(guard.MAC) bool) ([]guard.Protected, error) {
	if len(list) == 0 {
		return nil, nil
	}
	neighbors, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbors {
		a, ok := netip.AddrFromSlice(n.IP)
		a = a.Unmap()
		mac, good := usableHardware(n.HardwareAddr)
		if ok && good && slices.Contains(list, a) && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE|unix.NUD_NOARP) == 0 {
			g.seen(a, mac, suspect)
		}
	}
	g.save()
	var out []guard.Protected
	for _, a := range list {
		if mac, ok := g.pins[a]; ok {
			out = append(out, guard.Protected{MAC: mac, Origin: "the MAC of default gateway " + a.String(), Learned: true})
		}
	}
	return out, nil
}

func (g *gateways) seen(a netip.Addr, mac guard.MAC, suspect func(guard.MAC) bool) {
	pinned, known := g.pins[a]
	switch {
	case known && pinned == mac, g.told[a] == mac:
	case known:
		g.told[a] = mac
		g.log.Warn("a default gateway answers with another MAC than at first; only the first is protected by itself: if the new one is right, list it under protected.macs, or stop the device and remove the file",
			"gateway", a, "first", pinned.String(), "now", mac.String(), "file", g.path)
	case suspect(mac) || len(g.pins) >= maxGateways:
	default:
		g.pins[a], g.unwritten = mac, true
	}
}

func (g *gateways) save() {
	if !g.unwritten {
		return
	}
	b, err := json.MarshalIndent(g.pins, "", "  ")
	if err == nil {
		err = durablefile.Write(g.path, append(b, '\n'))
	}
	if err != nil && !g.failed {
		g.log.Warn("the MACs of default gateways cannot be written; after a restart they are learned anew", "err", err)
	}
	g.failed, g.unwritten = err != nil, err != nil
}
