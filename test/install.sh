#!/bin/bash
# Installs the programs that the tests talk to. For Debian, as root; says nothing when all are there.
# Only -race needs gcc and libc6-dev.
set -euo pipefail

packages=(btrfs-progs ca-certificates curl dovecot-imapd dovecot-lmtpd e2fsprogs gcc haproxy isync libc6-dev libnginx-mod-mail mandoc mutt nginx-light
	offlineimap3 openbsd-inetd openssh-client openssh-server openssl python3 s6 socat stunnel4 strace systemd tmux ucspi-tcp xfsprogs)

# Those that cannot be installed beside them: unpacked into a folder each, with the libraries that they need beyond the installed.
unpacked=(cyrus-common)
cache=/var/cache/imapd-test

missing=()
for p in "${packages[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$p")
done
absent=()
for p in "${unpacked[@]}"; do
	[ -d "$cache/$p" ] || absent+=("$p")
done
[ ${#missing[@]} -gt 0 ] || [ ${#absent[@]} -gt 0 ] || exit 0

echo "installing: ${missing[*]}" "${absent[*]/#/unpacked:}"
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

# unpack PACKAGE: the folder appears when all is in it. Of its libraries those stay out that only programs for viruses and Zephyr use.
unpack() {
	local work
	mkdir -p $cache && work=$(mktemp -d -p $cache) || return
	(cd "$work" && apt-get download -q "$1" && dpkg -x "$1"_*.deb all &&
		dpkg-deb -f "$1"_*.deb Depends | tr , '\n' | awk '$1 ~ /^lib/ && $1 !~ /^lib(clamav|zephyr)/ {print $1}' |
		xargs apt-get install -q -y --no-install-recommends) && mv "$work/all" "$cache/$1"
	local failed=$?
	rm -rf "$work"
	return $failed
}

work() {
	apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}" || return
	local p
	for p in "${absent[@]}"; do
		unpack "$p" || return
	done
}

if ! work >"$log" 2>&1 </dev/null; then
	tail -30 "$log"
	echo "test/install.sh: apt-get could not install: ${missing[*]} ${absent[*]}" >&2
	exit 1
fi
