#!/usr/bin/env bash
# Stops what start.sh started, and nothing else, and removes the data; `stop.sh web` stops only NetBox itself.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# Its quick end: it would wait for the connections that plugins keep open, and its worker would go on answering on them.
end gunicorn QUIT
[ "${1:-}" = web ] && exit
end redis
# SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
running postgres && kill -INT "$(cat "$RUN/postgres.pid")" || true
end postgres
rm -rf "$RUN"
