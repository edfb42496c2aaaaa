package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

type statusCommand struct {
	Output string `help:"table or json." enum:"table,json" default:"table" short:"o"`
}

// Run prints what the device says of itself.
func (s *statusCommand) Run(c *cli) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := client(cfg.Socket).Status(ctx, connect.NewRequest(&wirev1.StatusRequest{}))
	if err != nil {
		return fmt.Errorf("the device does not answer on %s (is cordon-enforcer running? its rules stay in force without it: 'nft list table inet cordon'): %w", cfg.Socket, err)
	}
	if s.Output == "json" {
		b, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true, UseProtoNames: true}.Marshal(resp.Msg)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
		return nil
	}
	return table(os.Stdout, resp.Msg)
}

func table(w io.Writer, st *wirev1.StatusResponse) error {
	fmt.Fprintf(w, "%s: %d ordered, %d in force, revision %d.%d\n", st.GetName(), st.GetDesired(), st.GetInForce(),
		st.GetHeld().GetEpoch(), st.GetHeld().GetNumber())
	if bg := st.GetBreakGlass(); bg.GetOn() {
		fmt.Fprintf(w, "BREAK GLASS since %s by %s: %s\n", bg.GetSince().AsTime().Format(time.RFC3339), bg.GetActor(), bg.GetReason())
	}
	for _, a := range st.GetAlarms() {
		fmt.Fprintln(w, "ALARM:", a)
	}
	if len(st.GetStatuses()) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "QUARANTINE\tSTATE\tADDRESSES\tDETAIL")
	for _, q := range st.GetStatuses() {
		var addresses []string
		for _, b := range q.GetBindings() {
			if a, ok := netip.AddrFromSlice(b.GetAddress()); ok {
				addresses = append(addresses, a.String())
			}
		}
		state := strings.ToLower(strings.TrimPrefix(q.GetState().String(), "ENFORCEMENT_STATE_"))
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", q.GetQuarantineId(), state, strings.Join(addresses, " "), q.GetDetail())
	}
	return tw.Flush()
}
