#!/usr/bin/env bash
# Installs the Debian packages that are missing: `demo` for what the demo LAN
# needs, `all` for the tests too. Does nothing, and needs no root, when all are there.
set -euo pipefail

demo=(
	nftables     # what the enforcer's work is compared with, and nft flush ruleset
	iproute2     # namespaces, links and neighbours of the test LAN
	procps       # sysctl, ps
	iputils-ping # what a person tries first on a kept LAN
	conntrack    # shows that connections were cut
	systemd      # PID 1 of hosts whose units are stopped
	dbus         # the bus that systemctl and the agent use on such a host
	cron         # persistence that the agent finds and disables
	util-linux   # unshare, nsenter
	git          # the version
	ca-certificates
)
tests=(
	protobuf-compiler # protoc: are the generated files fresh?
	libprotobuf-dev   # its timestamp.proto and duration.proto, only recommended by it
	gcc libc6-dev     # the race detector
	python3           # a script that the agent finds behind its interpreter
	diffutils
	chromium          # the console in a real browser
	zsh fish          # shells that complete the command line
)

case "${1:-all}" in
demo) want=("${demo[@]}") ;;
all) want=("${demo[@]}" "${tests[@]}") ;;
*)
	echo "usage: $0 demo|all" >&2
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "not a Debian system: make sure that these are installed: ${want[*]}" >&2
	exit 0
fi
missing=()
for p in "${want[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing Debian packages: ${missing[*]}" >&2
	echo "install them as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -q --no-install-recommends "${missing[@]}")
echo "installing: ${missing[*]}"
# The lists of a fresh machine are empty or old: fetch them only when the first try fails.
"${install[@]}" >/dev/null 2>&1 || { apt-get update -q && "${install[@]}"; }
