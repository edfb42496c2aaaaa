#!/bin/sh
# Measures Cordon and fail2ban in one run on this machine: from a line in a log to
# the first packet that is dropped. Debian's fail2ban is unpacked into a directory
# that is removed again, and runs in a namespace of the test LAN: nothing is
# installed. Run as root: bench/fail2ban.sh [TRIES]
set -eu

tries=${1:-100}
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir" # for apt's own user
(cd "$dir" && apt-get -q download fail2ban python3-pyinotify)
for deb in "$dir"/*.deb; do
	dpkg -x "$deb" "$dir"
done

config=$dir/etc/fail2ban
rm -f "$config"/jail.d/*
cat >"$config/filter.d/bench.conf" <<'END'
[Definition]
failregex = ^ ?bench: refused <HOST>$
END
cat >"$config/jail.local" <<'END'
[bench]
enabled = true
filter = bench
logpath = /var/log/bench.log
backend = pyinotify
maxretry = 1
findtime = 600
bantime = 600
protocol = udp
banaction = nftables[type=allports, blocktype=drop]
banaction_allports = nftables[type=allports, blocktype=drop]
END
cat >"$config/fail2ban.local" <<'END'
[Definition]
loglevel = WARNING
logtarget = STDOUT
socket = /run/fail2ban.sock
pidfile = /run/fail2ban.pid
dbfile = None
END

CORDON_FAIL2BAN=$dir go test -run '^$' -bench 'EventToDrop|PeerFail2ban' -benchtime "${tries}x" -timeout 1h ./cmd/cordon-mitigator
