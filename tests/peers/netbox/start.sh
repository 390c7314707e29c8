#!/usr/bin/env bash
# Starts a real NetBox on loopback, with PostgreSQL and Redis of its own and the data of seed/; each start begins anew.
#   start.sh        everything (the first time about two minutes, for pip; then ten seconds)
#   start.sh web    only NetBox itself, over the database that runs
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

web() {
    "$VENV/bin/gunicorn" --bind "127.0.0.1:$NB_PORT" --workers 1 --threads 4 --timeout 120 --pid "$RUN/gunicorn.pid" --daemon \
        --access-logfile "$RUN/log/access.log" --error-logfile "$RUN/log/gunicorn.log" netbox.wsgi
    local status=none i
    for i in $(seq 240); do
        status=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $(cat "$HERE/seed/token.rw")" \
            "http://127.0.0.1:$NB_PORT/api/status/" || true)
        [ "$status" = 200 ] && return
        sleep .25
    done
    echo "NetBox did not come up: HTTP $status" >&2
    tail -20 "$RUN/log/gunicorn.log" >&2
    return 1
}

[ "${1:-}" = web ] && { web; exit; }
"$HERE/stop.sh"

if ! "$VENV/bin/netbox" version 2>/dev/null | grep -qx "$NETBOX_VERSION"; then
    echo "installing NetBox $NETBOX_VERSION from PyPI"
    mkdir -p "$CACHE"
    "$(python)" -m venv --clear "$VENV"
    "$VENV/bin/pip" install -q --disable-pip-version-check "netbox==$NETBOX_VERSION"
fi

mkdir -p "$RUN"/{log,redis,pg} "$NETBOX_ROOT"/{conf,media,reports,scripts,static}
: > "$NETBOX_ROOT/conf/__init__.py"
sed -e "s#@PG_SOCKET@#$RUN/pg#; s#@PG_PORT@#$PG_PORT#; s#@RD_PORT@#$RD_PORT#" "$HERE/configuration.py.in" \
    > "$NETBOX_ROOT/conf/configuration.py"

[ "$(id -u)" = 0 ] && chown postgres "$RUN/pg"
# Nothing here has to survive anything: no fsync.
postgres_user initdb -D "$RUN/pg/data" -A trust -U netbox --no-sync -E UTF8 --locale=C.UTF-8 > "$RUN/log/initdb.log"
postgres_user pg_ctl -D "$RUN/pg/data" -w -l "$RUN/pg/log" start -o "-p $PG_PORT -k $RUN/pg -c listen_addresses='' -c fsync=off \
    -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=64MB -c max_connections=40" > /dev/null
head -1 "$RUN/pg/data/postmaster.pid" > "$RUN/postgres.pid"
PSQL=(psql -qAtX -v ON_ERROR_STOP=1 -h "$RUN/pg" -p "$PG_PORT" -U netbox)
"${PSQL[@]}" -d postgres -c 'create database netbox'
xz -dc "$HERE/seed/netbox-$NETBOX_VERSION.sql.xz" | "${PSQL[@]}" -d netbox > "$RUN/log/seed.log"

redis-server --bind 127.0.0.1 --port "$RD_PORT" --dir "$RUN/redis" --save '' --appendonly no --daemonize yes \
    --pidfile "$RUN/redis.pid" --logfile "$RUN/log/redis.log" > /dev/null
web
echo "NetBox $NETBOX_VERSION: http://127.0.0.1:$NB_PORT/, tokens in $HERE/seed"
