// Package assess answers what on the endpoint is behind a flow: which process,
// which tree of processes, which files, and what starts them.
//
// A Collector records facts; Decide is a pure function over them, so that the
// same facts always give the same verdict and can be kept as a test. The rules
// by which an executable counts as suspicious all stand in score.go.
package assess
