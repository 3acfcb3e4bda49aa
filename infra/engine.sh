#!/bin/sh
# engine.sh [debootstrap]: brings up a Docker engine with Compose on Debian or Ubuntu, as root, where none answers. What is there already
# stays as it is. With `debootstrap` it installs that, too: `labs images --local` makes its Debian with it.
set -eu

LOG=/var/log/backend-labs-dockerd.log
PLUGINS=/usr/local/lib/docker/cli-plugins
COME_UP_WITHIN_S=60

say() { printf 'engine: %s\n' "$*"; }

# fail MESSAGE HINT
fail() {
    printf '\nengine: %s\n\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

compose_version() { docker compose version --short 2>/dev/null; }

# The engine that the docker command asks; only one on this machine's own socket can be brought up here.
endpoint() {
    if [ -n "${DOCKER_HOST:-}" ]; then
        printf '%s\n' "$DOCKER_HOST"
    else
        docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || echo unix:///var/run/docker.sock
    fi
}

need_apt() {
    [ "$(id -u)" = 0 ] || fail "$1, and only root may install it" "run sudo sh infra/engine.sh, or install Docker by hand (https://docs.docker.com/engine/install)"
    command -v apt-get >/dev/null || fail "$1, and this machine has no apt-get" "install Docker by hand (https://docs.docker.com/engine/install)"
}

# Runs apt; its output is shown only when it fails.
run_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=2 "$@" >"$work/apt.log" 2>&1 || {
        tail -n 12 "$work/apt.log" | sed 's/^/  | /' >&2
        fail "apt-get $* failed" "read the lines above; a package mirror must be in reach"
    }
}

update_once() {
    [ -e "$work/updated" ] || run_apt update
    : >"$work/updated"
}

install_engine() {
    need_apt "no Docker engine is installed"
    say "installing docker.io by apt"
    update_once
    # tini: `docker run --init` needs it, and recommended packages are left out.
    run_apt install -y --no-install-recommends docker.io iptables tini
}

start_engine() {
    [ "$(id -u)" = 0 ] || fail "the Docker engine does not answer you, and only root may start it" \
        "run sudo sh infra/engine.sh; if it runs, add yourself to the group docker and log in anew"
    if [ -d /run/systemd/system ]; then
        say "starting the docker service (log: journalctl -u docker)"
        systemctl start docker || true
    else
        # A pid file that a killed engine left makes the next one refuse, the more so when another process has that number now.
        [ "$(cat "/proc/$(cat /var/run/docker.pid 2>/dev/null)/comm" 2>/dev/null)" = dockerd ] || rm -f /var/run/docker.pid
        say "starting dockerd (log: $LOG)"
        setsid dockerd >>"$LOG" 2>&1 </dev/null &
        started=$!
    fi
    deadline=$(($(date +%s) + COME_UP_WITHIN_S))
    until engine_version >/dev/null; do
        if [ "$(date +%s)" -ge "$deadline" ] || { [ -n "${started:-}" ] && ! kill -0 "$started" 2>/dev/null; }; then
            [ -z "${started:-}" ] || tail -n 12 "$LOG" | cut -c1-300 | sed 's/^/  | /' >&2
            fail "the Docker engine did not come up (waited at most $COME_UP_WITHIN_S s)" "its log says why"
        fi
        sleep 0.2 # dockerd tells nobody when it is ready
    done
}

has_package() { apt-cache show "$1" 2>/dev/null | grep -q "^Version: $2"; }

# Takes Compose from the system's packages, else from those of the next Debian, whose build needs nothing else.
install_compose() {
    need_apt "the docker command has no Compose plugin"
    say "installing Compose by apt"
    update_once
    if has_package docker-compose-v2 ''; then
        run_apt install -y --no-install-recommends docker-compose-v2
    elif has_package docker-compose-plugin ''; then
        run_apt install -y --no-install-recommends docker-compose-plugin
    elif has_package docker-compose '\([2-9]\|[1-9][0-9]\)\.'; then
        run_apt install -y --no-install-recommends docker-compose
    else
        unpack_compose
    fi
}

# Everything apt writes goes to a folder of our own: this machine's sources and lists stay as they are.
unpack_compose() {
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' | awk '$2 == "Debian" { print $1; exit }')
    [ -n "$mirror" ] || fail "no package of this system holds Compose 2" "install the plugin by hand (https://docs.docker.com/compose/install)"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$work/etc" "$work/lists/partial" "$work/cache/archives/partial"
    printf 'deb [signed-by=%s] %s trixie main\n' "$keyring" "${mirror%/}" >"$work/etc/sources.list"
    set -- -o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root
    run_apt "$@" update
    (cd "$work" && run_apt "$@" download docker-compose)
    dpkg-deb -x "$work"/docker-compose_*.deb "$work/unpacked"
    mkdir -p "$PLUGINS"
    install -m 755 "$work/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$PLUGINS/docker-compose"
}

install_debootstrap() {
    need_apt "there is no debootstrap"
    say "installing debootstrap by apt"
    update_once
    run_apt install -y --no-install-recommends debootstrap
}

case "$#:${1:-}" in 0: | 1:debootstrap) ;; *) fail "not understood: $*" "sh infra/engine.sh [debootstrap]" ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if ! engine_version >/dev/null; then
    case $(endpoint) in
    unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
    *) fail "no Docker engine answers at $(endpoint)" "that one is not this script's to start; unset DOCKER_HOST or run docker context use default" ;;
    esac
    command -v dockerd >/dev/null && command -v docker >/dev/null || install_engine
    engine_version >/dev/null || start_engine
fi
compose_version >/dev/null || install_compose
compose=$(compose_version) || fail "docker compose still does not run" "try docker compose version"
[ "${1:-}" != debootstrap ] || command -v debootstrap >/dev/null || install_debootstrap
say "Docker $(engine_version) with Compose $compose answers at $(endpoint)"
