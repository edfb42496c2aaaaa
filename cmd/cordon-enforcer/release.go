package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/enforcer/breakglass"
	"github.com/cordon-security/cordon/enforcer/nft"
	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
	"github.com/cordon-security/cordon/internal/wire/v1/wirev1connect"
)

// answerWithin is how long the device may take before it counts as dead.
const answerWithin = 2 * time.Second

func client(socket string) wirev1connect.DeviceServiceClient {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	return wirev1connect.NewDeviceServiceClient(&http.Client{Transport: transport}, "http://device")
}

// who names the person for the log: the one behind sudo when there is one.
func who() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" {
		name = sudo + " (sudo)"
	}
	return name
}

type releaseCommand struct {
	Reason   string `help:"Why, for whoever reads the log." required:""`
	StateDir string `help:"The device's state_dir, when the configuration file cannot be read."`
	Socket   string `help:"The device's socket, when the configuration file cannot be read."`
}

// config is what the file says, however faulty it is otherwise, under what the
// command line says.
func (r *releaseCommand) config(c *cli) Config {
	cfg, err := c.load()
	if err != nil {
		cfg = defaults()
		if content, readErr := os.ReadFile(c.Config); readErr == nil {
			cfg = salvage(content)
		}
		fmt.Fprintln(os.Stderr, "cordon-enforcer: the configuration is faulty:", err)
	}
	if r.StateDir != "" {
		cfg.StateDir = r.StateDir
	}
	if r.Socket != "" {
		cfg.Socket = r.Socket
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cordon-enforcer: going on with state_dir %s and socket %s\n", cfg.StateDir, cfg.Socket)
	}
	return cfg
}

// Run lifts every quarantine. It needs neither the device's process nor its
// desired set nor the mitigator; a faulty configuration file does not stop it.
func (r *releaseCommand) Run(c *cli) error {
	cfg := r.config(c)
	done, err := r.ask(cfg)
	if done {
		return err
	}
	fmt.Fprintln(os.Stderr, "cordon-enforcer: the device does not answer, its tables are taken away directly:", err)
	return r.direct(cfg)
}

// ask goes through the device's process. It reports whether that answered.
func (r *releaseCommand) ask(cfg Config) (done bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	resp, err := client(cfg.Socket).ReleaseAll(ctx, connect.NewRequest(&wirev1.ReleaseAllRequest{Actor: who(), Reason: r.Reason}))
	if err != nil {
		return false, err
	}
	fmt.Printf("%d quarantines lifted; orders are held back until 'cordon-enforcer resume'\n", resp.Msg.GetReleased())
	if resp.Msg.GetDetail() != "" {
		fmt.Fprintln(os.Stderr, "cordon-enforcer: warning:", resp.Msg.GetDetail())
	}
	return true, nil
}

// direct sets the marker first, so that a device that hangs or comes back does
// not put the quarantines in force again, and then takes the tables away.
func (r *releaseCommand) direct(cfg Config) error {
	marker := breakglass.Marker{StateDir: cfg.StateDir, RunDir: filepath.Dir(cfg.Socket)}
	order := breakglass.Order{Since: time.Now().UTC(), Actor: who(), Reason: r.Reason}
	markErr := marker.Set(order)
	err := lift()
	detail := ""
	if markErr != nil {
		detail = markErr.Error()
	}
	logErr := marker.Log("release-all directly", order, time.Now(), detail)
	if errors.Is(err, errPutBack) {
		return fmt.Errorf("%w; its state_dir is not %s: name it with --state-dir and --socket, or stop it ('systemctl stop cordon-enforcer') and repeat this",
			err, cfg.StateDir)
	}
	if err != nil {
		return fmt.Errorf("quarantines may still be in force ('nft delete table inet cordon' and 'nft delete table bridge cordon' lift them): %w",
			errors.Join(err, markErr))
	}
	fmt.Println("every quarantine is lifted, and that was read back twice")
	if markErr != nil {
		fmt.Fprintln(os.Stderr, "cordon-enforcer: warning: it may not survive a restart of the device:", markErr)
	}
	if logErr != nil {
		fmt.Fprintln(os.Stderr, "cordon-enforcer: warning: it could not be logged:", logErr)
	}
	return nil
}

// putBackWithin is how long a device that lives may take to put quarantines in
// force again, if it does not know of the order.
const putBackWithin = 2 * time.Second

var errPutBack = errors.New("quarantines were lifted, and a device that lives put them in force again")

// lift takes the tables away, and looks twice.
func lift() (err error) {
	m, err := nft.New(nft.Options{Log: slog.Default()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Clear(); err != nil {
		return err
	}
	time.Sleep(putBackWithin)
	n, err := m.Count()
	if err == nil && n > 0 {
		return errPutBack
	}
	return err
}

type resumeCommand struct{}

// Run ends break glass. With the device dead it removes the marker; the device
// puts the quarantines in force when it starts.
func (resumeCommand) Run(c *cli) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = client(cfg.Socket).Resume(ctx, connect.NewRequest(&wirev1.ResumeRequest{Actor: who()}))
	if err == nil {
		fmt.Println("break glass is over, orders are in force again")
		return nil
	}
	if connect.CodeOf(err) != connect.CodeUnavailable {
		return err
	}
	marker := breakglass.Marker{StateDir: cfg.StateDir, RunDir: filepath.Dir(cfg.Socket)}
	if err := marker.Clear(); err != nil {
		return err
	}
	_ = marker.Log("resume directly", breakglass.Order{Actor: who()}, time.Now(), "")
	fmt.Println("break glass is over; the device is not running and puts the orders in force when it starts")
	return nil
}
