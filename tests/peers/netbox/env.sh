# Where the peer keeps its state: outside of every checkout, and below nothing that only root may enter, as PostgreSQL does not
# run as root.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NETBOX_VERSION=${NETBOX_VERSION:-4.7.3}
NB_PORT=${NB_PORT:-58080} PG_PORT=${PG_PORT:-55432} RD_PORT=${RD_PORT:-56379}
CACHE=${PEER_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/kiwispray/peers}
VENV=$CACHE/netbox-$NETBOX_VERSION
RUN=${TMPDIR:-/var/tmp}/kiwispray-netbox-$NB_PORT
export NETBOX_ROOT=$RUN/root
# NetBox needs Python 3.12 or newer; PYTHON names one that is elsewhere.
python() {
    local candidate
    for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo "$candidate"; return; }
    done
    echo 'NetBox needs Python 3.12 or newer: name one in PYTHON' >&2
    return 1
}
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin | sed 's/:$//')
postgres_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi; }
running() { [ -s "$RUN/$1.pid" ] && kill -0 "$(head -1 "$RUN/$1.pid")" 2>/dev/null; }
# `end NAME [SIGNAL]` ends a process by its number, and waits until it is gone.
end() {
    running "$1" || return 0
    local pid i
    pid=$(head -1 "$RUN/$1.pid")
    kill "-${2:-TERM}" "$pid"
    for i in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep .1; done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$RUN/$1.pid"
}
