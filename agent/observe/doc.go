// Package observe keeps what happened on the endpoint in the last minutes:
// processes, who started them, and TCP connections with the process that
// opened them, also those that ended.
//
// Three sources feed a History, best first: BPF tracepoints, the kernel's proc
// connector, and polling. Open takes the best one that works and tells why the
// others do not.
package observe
