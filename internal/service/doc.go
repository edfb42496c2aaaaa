// Package service is what the main function of each long-running Cordon
// program needs: signals that end it, systemd's readiness and watchdog
// protocol (sd_notify(3)), a log that the journal understands, exit codes and
// the version.
//
// A program is one call:
//
//	os.Exit(service.Main("cordon-enforcer", func(ctx context.Context, ready func()) error {
//		unit := service.From(ctx)
//		unit.Watch(reconciler.Healthy)
//		unit.Status("%d quarantines in force", n)
//		ready()
//		return enforcer.Run(ctx)
//	}))
package service
