// Package wirev1connect has the Connect clients and handlers of the wire
// protocol's services, generated from the schema in internal/wire/v1.
package wirev1connect
