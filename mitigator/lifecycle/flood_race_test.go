//go:build race

package lifecycle

// floodSize is smaller where everything takes ten times as long.
const floodSize = 5_000
