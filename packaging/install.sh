#!/usr/bin/env bash
# Installs services from what `make build` built, as root:
#   packaging/install.sh mitigator enforcer    on the appliance
#   packaging/install.sh agent                 on an endpoint
# Running it again is an upgrade: configuration, state and what is enabled stay,
# and services that run go on with the old program until they are restarted.
# BIN names the folder of the built programs, bin/ by default.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../bin}

fail() {
	echo "$0: $*" >&2
	exit 1
}

[ $# -gt 0 ] || fail "name the services to install: mitigator, enforcer, agent"
for service in "$@"; do
	case $service in
	mitigator | enforcer | agent) ;;
	*) fail "there is no service $service: mitigator, enforcer, agent" ;;
	esac
	[ -x "$bin/cordon-$service" ] || fail "$bin/cordon-$service is not there: run make build, or set BIN"
done
[ -x "$bin/cordon" ] || fail "$bin/cordon is not there: run make build, or set BIN"
[ "$(id -u)" = 0 ] || fail "run this as root"
[ -d /run/systemd/system ] || fail "this machine does not run systemd"

# program puts a program in place by a rename: one that runs is not written to.
program() {
	install -m 755 "$bin/$1" "/usr/bin/.$1.new"
	mv -f "/usr/bin/.$1.new" "/usr/bin/$1"
}

install -D -m 644 "$here/sysusers.d/cordon.conf" /usr/lib/sysusers.d/cordon.conf
install -D -m 644 "$here/tmpfiles.d/cordon.conf" /usr/lib/tmpfiles.d/cordon.conf
systemd-sysusers cordon.conf
systemd-tmpfiles --create cordon.conf
program cordon
for service in "$@"; do
	program "cordon-$service"
	install -D -m 644 "$here/systemd/cordon-$service.service" "/usr/lib/systemd/system/cordon-$service.service"
	[ -e "/etc/cordon/$service.yaml" ] || install -m 644 "$here/etc/cordon/$service.yaml" "/etc/cordon/$service.yaml"
	[ "$service" != enforcer ] || install -D -m 644 "$here/sysctl.d/60-cordon.conf" /usr/lib/sysctl.d/60-cordon.conf
done
systemctl daemon-reload

for service in "$@"; do
	if systemctl is-active --quiet "cordon-$service"; then
		echo "restart it:  systemctl restart cordon-$service"
	else
		echo "set it up in /etc/cordon/$service.yaml, then:  systemctl enable --now cordon-$service"
	fi
done
