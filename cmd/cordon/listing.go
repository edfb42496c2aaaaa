package main

import (
	"fmt"

	"connectrpc.com/connect"
)

// The codes that commands have hints for.
const (
	notFound     = connect.CodeNotFound
	precondition = connect.CodeFailedPrecondition
	invalid      = connect.CodeInvalidArgument
)

func atLeastOne(limit uint32) error {
	if limit == 0 {
		return usage("--limit 0 would list nothing", "such as --limit 100")
	}
	return nil
}

// maxUnpaged is how many items the appliance lists of what has no pages.
const maxUnpaged = 1000

// unpaged checks the limit of a listing that has no pages.
func unpaged(limit uint32) error {
	if limit > maxUnpaged {
		return usage(fmt.Sprintf("--limit %d is too much: the appliance lists at most %d of these", limit, maxUnpaged), fmt.Sprintf("such as --limit %d", maxUnpaged))
	}
	return atLeastOne(limit)
}

// pages collects up to limit items of a list that comes page by page. next asks
// for the page behind an item's id (0 for the first). A page that does not go
// on from the one before it ends the list, so that no server can hold us.
func pages[T any](limit uint32, id func(T) int64, next func(behind int64, want uint32) ([]T, error)) ([]T, error) {
	var all []T
	var behind int64
	for uint32(len(all)) < limit {
		got, err := next(behind, limit-uint32(len(all)))
		if err != nil {
			return nil, err
		}
		if len(got) == 0 || len(all) > 0 && id(got[0]) == id(all[0]) {
			break
		}
		all = append(all, got[:min(len(got), int(limit)-len(all))]...)
		last := id(all[len(all)-1])
		if last == behind {
			break
		}
		behind = last
	}
	return all, nil
}

// more tells the person that a listing ends at its limit: also beside JSON, since
// who counts in it must know.
func (s *session) more(shown int, limit uint32) {
	if uint32(shown) >= limit {
		s.say("hint: there may be more: this shows %d, --limit sets how many", shown)
	}
}
