//go:build !race

package lifecycle

// floodSize is how many forged events a flood has.
const floodSize = 20_000
