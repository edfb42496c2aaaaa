package link

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	wirev1 "github.com/cordon-security/cordon/internal/wire/v1"
)

// maxResultSize leaves room for the request around the result.
const maxResultSize = maxMessageSize - 64<<10

// shrink returns the result itself where it fits into one message, else a copy
// that fits, keeps status and verdict, and says what it lacks.
func shrink(result *wirev1.TaskResult) *wirev1.TaskResult {
	size := proto.Size(result)
	if size <= maxResultSize {
		return result
	}
	small, ok := proto.Clone(result).(*wirev1.TaskResult)
	if !ok {
		return result
	}
	for proto.Size(small) > maxResultSize/2 && len(small.Objects)+len(small.Actions)+len(small.Reasons) > 0 {
		small.Objects = small.Objects[:len(small.Objects)/2]
		small.Actions = small.Actions[:len(small.Actions)/2]
		small.Reasons = small.Reasons[:len(small.Reasons)/2]
	}
	small.Reasons = append(small.Reasons, fmt.Sprintf(
		"the full result has %d bytes, more than one message takes (%d): %d of %d objects and %d of %d actions are here, all of them in the agent's folder \"refused\"",
		size, maxMessageSize, len(small.Objects), len(result.Objects), len(small.Actions), len(result.Actions)))
	return small
}
