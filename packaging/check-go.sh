#!/usr/bin/env bash
# Says clearly when the Go that builds Cordon is missing or too old.
set -euo pipefail
need=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$(dirname "$0")/../go.mod")
if ! command -v go >/dev/null; then
	echo "Go $need or newer is needed and no go is in PATH." >&2
	echo "Debian 12's golang package is 1.19, too old: install Go as https://go.dev/doc/install says, then put /usr/local/go/bin into PATH." >&2
	exit 1
fi
have=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
if [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" != "$need" ]; then
	echo "Go $need or newer is needed; $(command -v go) is $have." >&2
	echo "Debian 12's golang package is too old: install Go as https://go.dev/doc/install says." >&2
	exit 1
fi
