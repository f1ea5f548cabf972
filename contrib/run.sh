#!/bin/bash
# Serves a Maildir on this machine for a look at imapd: `make run` calls it
# after it has built ./imapd.
#
#   MAILDIR=/path   the Maildir to serve; a small sample in run/Maildir if empty
#   LISTEN="..."    the addresses, as for the option listen
#   RUN=/path       where everything is kept; ./run if empty
#
# Everything but LISTEN is kept from one run to the next; remove run/ to start
# anew.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
run=${RUN:-$top/run}
listen=${LISTEN:-imap://127.0.0.1:1143 imaps://127.0.0.1:1993}
user=demo

# put FOLDER SUBDIRECTORY FILE FLAGS: one message of the sample.
put() {
	local dir=$run/Maildir${1:+/$1} source=$top/contrib/sample/$3 when name
	mkdir -p "$dir"/{cur,new,tmp}
	[ -z "$1" ] || : >"$dir/maildirfolder"
	when=$(date -d "$(sed -n 's/^Date: //p' "$source")" +%s)
	name=$when.M1P1.sample,S=$(stat -c %s "$source")
	[ "$2" = new ] || name=$name:2,$4
	cp "$source" "$dir/$2/$name"
	touch -d "@$when" "$dir/$2/$name"
}

sample() {
	put '' cur welcome.eml S
	put '' cur minutes.eml FS
	put '' new reply.eml ''
	put .Sent cur sent.eml S
	put .Drafts cur draft.eml D
	put '.Gr&APwA3w-e' new greeting.eml ''          # Grüße
	put '.Gr&APwA3w-e.&ZeVnLIqe-' cur greeting.eml S # Grüße/日本語
	printf '%s\n' Sent Drafts 'Gr&APwA3w-e' 'Gr&APwA3w-e.&ZeVnLIqe-' >"$run/Maildir/subscriptions"
}

certificate() {
	local dir
	dir=$(mktemp -d "$run/tls.XXXXXX")
	if command -v openssl >/dev/null; then
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=localhost \
			-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
	else
		(cd "$dir" && go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" -ecdsa-curve P256 -host localhost,127.0.0.1,::1 2>/dev/null)
	fi
	mv "$dir/key.pem" "$dir/cert.pem" "$run/"
	rmdir "$dir"
}

umask 077
mkdir -p "$run/msg" "$run/log"
run=$(cd "$run" && pwd)
[ -s "$run/cert.pem" ] && [ -s "$run/key.pem" ] || certificate
[ -s "$run/password" ] || od -An -N9 -tx1 /dev/urandom | tr -d ' \n' >"$run/password"
password=$(cat "$run/password")
printf '%s:{PLAIN}%s::::::\n' "$user" "$password" >"$run/passwd"
if [ -n "${MAILDIR:-}" ]; then
	maildir=$(cd "$MAILDIR" && pwd)
else
	maildir=$run/Maildir
	[ -d "$maildir" ] || sample
fi

{
	echo "configdirectory: $run"
	echo "listen: $listen"
	echo "maildir: ${maildir//%/%%}"
	echo "sasl_pwcheck_method: passwd-file"
	echo "sasl_passwd_file: $run/passwd"
	echo "tls_server_cert: $run/cert.pem"
	echo "tls_server_key: $run/key.pem"
	# The server is for this machine only.
	echo "allowplaintext: yes"
	[ "$(id -u)" != 0 ] || echo "cyrus_user: $(stat -c %U "$maildir" | grep -v '^UNKNOWN$' || stat -c %u "$maildir")"
} >"$run/imapd.conf"

# Started by root, imapd becomes the owner of the mail before it reads these.
if [ "$(id -u)" = 0 ]; then
	owner=$(stat -c %u:%g "$maildir")
	chown "$owner" "$run" "$run"/{msg,log,passwd,imapd.conf,cert.pem,key.pem}
	if command -v setpriv >/dev/null && ! setpriv --reuid "${owner%:*}" --clear-groups --regid "${owner#*:}" test -r "$run/passwd"; then
		echo "The owner of $maildir cannot reach $run; give RUN= another place." >&2
		exit 1
	fi
fi

first=
echo "Serving $maildir"
for url in $listen; do
	case $url in imap://* | imaps://*) first=${first:-$url} ;; esac
	echo "  $url"
done
echo "User $user, password $password"
case $first in
imap://*) echo "Try: curl --user $user:$password '$first/INBOX;UID=1'" ;;
imaps://*) echo "Try: curl --insecure --user $user:$password '$first/INBOX;UID=1'" ;;
esac
echo "Ctrl-C ends it."
exec "$top/imapd" -l -C "$run/imapd.conf"
