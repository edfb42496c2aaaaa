// Package guard says what the agent never touches, whatever the evidence: pid
// 1, kernel threads, the agent and those who started it, the programs that a
// machine cannot be reached or run without, the main process of the services
// that the configuration lists, and unchanged files of installed packages.
//
// No rule and no order overrides it. A child of a listed service, and the
// process of a packaged interpreter that runs a script in evidence, may be
// stopped.
package guard
