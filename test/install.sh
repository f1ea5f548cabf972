#!/bin/bash
# Installs the programs that the tests talk to. For Debian, as root; says nothing when all are there.
# Only -race needs gcc and libc6-dev.
set -euo pipefail

packages=(btrfs-progs ca-certificates curl dovecot-imapd dovecot-lmtpd e2fsprogs fail2ban gcc haproxy isync libc6-dev libnginx-mod-mail mandoc mutt nginx-light
	offlineimap3 openbsd-inetd openssh-client openssh-server openssl python3 rsync s6 sasl2-bin socat stunnel4 strace systemd tmux ucspi-tcp xfsprogs)
# What programs of Cyrus and Courier need that are unpacked, not installed: few of their packages can live beside Dovecot's.
packages+=(libgdbm6 libical3 libicu72 libidn12 libjansson4 libpcre3 libpq5 libsasl2-2 libsqlite3-0 libwrap0 libxapian30 libxml2)

missing=()
for p in "${packages[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The packages' own services are not wanted: the tests start what they need.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f "$log" '$policy EXIT
fi

if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
	tail -30 "$log"
	echo "test/install.sh: apt-get could not install: ${missing[*]}" >&2
	exit 1
fi
