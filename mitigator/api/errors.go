package api

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cordon-security/cordon/mitigator/fleet"
	"github.com/cordon-security/cordon/mitigator/lifecycle"
	"github.com/cordon-security/cordon/mitigator/store"
)

// wireError gives an error the code by which a caller tells what kind it is,
// and leaves the text to people.
func wireError(err error) error {
	var done *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &done):
		return err
	case errors.Is(err, store.ErrNotFound), errors.Is(err, fleet.ErrAgentUnknown):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, lifecycle.ErrRefused):
		return connect.NewError(connect.CodePermissionDenied, err)
	case errors.Is(err, lifecycle.ErrAlready), errors.Is(err, lifecycle.ErrNotQuarantined),
		errors.Is(err, lifecycle.ErrEnded), errors.Is(err, lifecycle.ErrNoMAC):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, store.ErrFull):
		return connect.NewError(connect.CodeUnavailable,
			fmt.Errorf("%w: make room on the mitigator's disk and try again; nothing was changed", err))
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}
