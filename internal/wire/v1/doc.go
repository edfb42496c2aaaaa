// Package wirev1 is version 1 of Cordon's wire protocol, generated from the
// schema beside it: AgentService (mitigator to agents), DeviceService
// (enforcement devices) and AdminService (command line, console, scripts). The
// transport is Connect, over TLS 1.3 or a Unix socket.
package wirev1
