#!/bin/sh
# Install from Debian's packages what the integration tests need and this machine lacks:
# PostgreSQL, RabbitMQ, Redis, Chromium (with letters for Chinese), libfaketime, Spin and a C compiler for the model.
# Their services are not started: tests start private servers.
# Without root or apt: one line that says what is missing, and (unless SIGNALBOX_REQUIRE_SERVERS is set) success.
set -eu

missing=""
lacks() { missing="$missing $1"; }

ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || lacks postgresql
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && command -v erl_call >/dev/null 2>&1 || lacks rabbitmq-server
command -v redis-server >/dev/null 2>&1 || lacks redis-server
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || lacks "chromium fonts-wqy-microhei"
command -v spin >/dev/null 2>&1 || lacks spin
command -v cc >/dev/null 2>&1 || lacks "gcc libc6-dev"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || lacks libfaketime
[ -n "$missing" ] || exit 0

give_up() {
	echo "servers: missing:$missing ($1); tests that need them are skipped" >&2
	[ -z "${SIGNALBOX_REQUIRE_SERVERS:-}" ] || [ "$SIGNALBOX_REQUIRE_SERVERS" = 0 ] || exit 1
	exit 0
}

command -v apt-get >/dev/null 2>&1 || give_up "no apt-get here: install them by hand"
[ "$(id -u)" = 0 ] || give_up "not root: sudo tests/servers/install.sh"

echo "servers: installing$missing"
# Packages of servers start them at once; this keeps them from it, for this installation only.
made_policy=""
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	made_policy=1
fi
trap '[ -z "$made_policy" ] || rm -f $policy' EXIT
trap 'exit 1' INT TERM HUP
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# A fresh image may have no lists, or old ones.
# shellcheck disable=SC2086
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	rm -f "$log"
	give_up "apt-get failed, see above"
fi
rm -f "$log"
