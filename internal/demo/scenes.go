package demo

import "context"

// scene is one part of the story.
type scene struct {
	letter string
	title  string
	// needs is the letter of the scene that must have been played before.
	needs string
	play  func(*stage, context.Context) error
}

// story is all of it, in order.
var story = []scene{
	{"a", "alice: found from the connection, cleaned, resolved", "", (*stage).cleanAlice},
	{"b", "bob: cannot be cleaned, so he is cut off", "", (*stage).cutBobOff},
	{"c", "printer: has no agent, so policy cuts it off", "", (*stage).cutPrinterOff},
	{"d", "printer: released by the administrator", "c", (*stage).releasePrinter},
	{"e", "the mitigator is killed in the middle of a cleanup", "", (*stage).killMitigator},
	{"f", "bob changes his addresses", "b", (*stage).moveBob},
}
