#!/bin/sh
# Install candlecast where its units expect it, or uninstall it; `make install` and `make uninstall`.
# With DESTDIR nothing is started or reloaded, and a package can be built from the result.
set -eu
cd "$(dirname "$0")/.."
destdir=${DESTDIR:-}
prefix=${PREFIX:-/opt/candlecast}
etc=$destdir/etc/candlecast
units=$destdir/usr/local/lib/systemd/system
sysusers=$destdir/usr/local/lib/sysusers.d
command=$destdir/usr/local/bin/candlecast
names="candlecast.service candlecast-retrain.service candlecast-retrain.timer candlecast-retrain.path
candlecast@.service candlecast-retrain@.service candlecast-retrain@.timer candlecast-retrain@.path"

fail() {
    echo "candlecast: $1" >&2
    exit 1
}

# Without DESTDIR this machine's system folders are written to.
need_root() {
    [ -n "$destdir" ] || [ "$(id -u)" = 0 ] || fail "run it as root, or with DESTDIR=FOLDER"
}

is_live() {
    [ -z "$destdir" ] && [ -d /run/systemd/system ]
}

install_all() {
    need_root
    home=$(readlink -f "$("$PYTHON" -c 'import sys; print(sys.base_prefix)')")
    case $home in
    /home/* | /root/* | /tmp/*)
        # The units hide home directories from the daemon, and with them this Python.
        [ -n "$destdir" ] ||
            fail "services cannot see $home; put a system-wide Python 3.11, 3.12 or 3.13 first on PATH" ;;
    esac
    venv=$destdir$prefix/venv
    "$PYTHON" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "${LOCK:-systemd/requirements.lock}"
    # Build from a copy, because setuptools leaves its build folder beside the sources.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp -r config daemon model pyproject.toml README.md LICENSE "$copy"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --no-build-isolation "$copy"
    # Scripts contain the path of their interpreter, which must not include DESTDIR.
    [ -z "$destdir" ] || sed -i "1s|^#!$destdir|#!|" "$venv"/bin/*

    install -d "$units" "$sysusers" "$etc" "${command%/*}"
    install -d -m 0700 "$etc/credentials"
    for name in $names; do
        sed "s|/opt/candlecast/|$prefix/|" "systemd/$name" >"$units/$name"
        chmod 0644 "$units/$name"
    done
    sed "s|/opt/candlecast/|$prefix/|" systemd/command.sh >"$command"
    chmod 0755 "$command"
    install -m 0644 systemd/candlecast.sysusers "$sysusers/candlecast.conf"
    [ -e "$etc/config.yaml" ] || install -m 0644 config/config.yaml "$etc/config.yaml"
    if is_live; then
        systemd-sysusers "$sysusers/candlecast.conf"
        systemctl daemon-reload
    fi
    echo "candlecast is installed in $prefix. Next: edit /etc/candlecast/config.yaml, then"
    echo "  candlecast doctor                             # checks everything but the model"
    echo "  systemctl start candlecast-retrain.service    # trains the first model; takes some minutes"
    echo "  systemctl enable --now candlecast.service candlecast-retrain.timer candlecast-retrain.path"
}

uninstall_all() {
    need_root
    need_root
    if is_live; then
        systemctl disable --now --quiet candlecast.service candlecast-retrain.timer \
            candlecast-retrain.path candlecast-retrain.service 2>/dev/null || true
        systemctl stop 'candlecast@*.service' 'candlecast-retrain@*'
    fi
    for name in $names; do
        rm -f "$units/$name"
    done
    # Links that `systemctl enable` has made for instances.
    rm -f "$destdir"/etc/systemd/system/*.wants/candlecast@*.service \
        "$destdir"/etc/systemd/system/*.wants/candlecast-retrain@*
    rm -f "$sysusers/candlecast.conf" "$command"
    rm -rf "$destdir${prefix:?}/venv"
    [ ! -d "$destdir$prefix" ] || rmdir --ignore-fail-on-non-empty "$destdir$prefix"
    if is_live; then
        systemctl daemon-reload
    fi
    echo "candlecast is uninstalled; /etc/candlecast, /var/lib/candlecast and the user candlecast remain."
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*) fail "usage: install.sh install | uninstall" ;;
esac
