#!/bin/sh
# The command `candlecast` of an installed service. For root it runs as the service's user, with the
# service's configuration, state and secrets, so it leaves no file that the service cannot read or replace.
# `candlecast @NAME …` is the command of the instance candlecast@NAME.
set -eu
program=/opt/candlecast/venv/bin/candlecast
[ "$(id -u)" = 0 ] || exec "$program" "$@"

name=
case ${1:-} in
@?*)
    name=${1#@}
    shift
    ;;
esac
state=/var/lib/candlecast${name:+/$name}
install -d -m 0750 -o candlecast -g candlecast /var/lib/candlecast "$state"
cd "$state"
umask 0077
export HOME="$state" STATE_DIRECTORY="$state" CREDENTIALS_DIRECTORY=/run/candlecast
mkdir -p "$CREDENTIALS_DIRECTORY"
# Only this process can see the secrets, and they disappear when it ends.
exec unshare --mount sh -euc '
    mount -t tmpfs -o mode=0700 tmpfs "$CREDENTIALS_DIRECTORY"
    for file in /etc/candlecast/credentials/*; do
        [ ! -f "$file" ] || cp "$file" "$CREDENTIALS_DIRECTORY/candlecast_${file##*/}"
    done
    chown -R candlecast "$CREDENTIALS_DIRECTORY"
    exec setpriv --reuid=candlecast --regid=candlecast --init-groups "$@"
' sh "$program" --config "/etc/candlecast/${name:-config}.yaml" "$@"
