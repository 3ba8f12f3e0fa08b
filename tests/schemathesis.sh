#!/bin/bash
# Has schemathesis make thousands of requests from the API's document. None may be answered with 5xx, or with a status, media
# type or body that the document doesn't have. First with what it makes up, then about an agent and a session that are there.
#
# Needs the built program and Python 3; schemathesis is installed into a folder of its own, which SCHEMATHESIS_VENV names.
#
#   tests/schemathesis.sh [CASES]     cases an operation, 100 if not given
set -euo pipefail
cd "$(dirname "$0")/.."
cases=${1:-100}
superserve=${SUPERSERVE:-$PWD/target/debug/superserve}
work=$(mktemp -d)
venv=${SCHEMATHESIS_VENV:-$work/venv}
export SUPERSERVE_HOME="$work/home"
server= forwarder=
finish() {
    for pid in $server $forwarder; do kill "$pid" && wait "$pid" || true; done 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet schemathesis; }

SUPERSERVE_SESSION_EXPIRE_AFTER=never "$superserve" serve 2>"$work/log" &
server=$!
# The socket, as schemathesis can reach it.
cat >"$work/forward.py" <<'PYTHON'
import asyncio, sys

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def serve():
    async def connected(reader, writer):
        theirs, ours = await asyncio.open_unix_connection(sys.argv[1])
        await asyncio.gather(copy(reader, ours), copy(theirs, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(serve())
PYTHON
for _ in $(seq 100); do [ -S "$SUPERSERVE_HOME/run/server.sock" ] && break; sleep 0.1; done
mkfifo "$work/port"
python3 "$work/forward.py" "$SUPERSERVE_HOME/run/server.sock" >"$work/port" 2>/dev/null &
forwarder=$!
read -r port <"$work/port"
url=http://127.0.0.1:$port

fuzz() {
    # The watch has no end, and nothing is left to ask after the stop.
    (cd "$work" && "$venv/bin/schemathesis" "$@" run "$url/v1/openapi.json" --url "$url" \
        --exclude-operation-id server_stop --exclude-operation-id sessions_watch \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
        --continue-on-failure --request-timeout 30 --max-examples "$cases" --no-color)
}

"$superserve" deploy --dir tests/agents/echo -y 2>/dev/null
echo "== with what it makes up"
fuzz || failed=1

"$superserve" deploy --dir tests/agents/echo -y 2>/dev/null || true
session=$("$superserve" eval 'sessions::create("echo").id')
cat >"$work/there.toml" <<TOML
[parameters]
"path.agent" = "echo"
"path.id" = "$session"
"path.path" = "notes/a.txt"
TOML
echo "== about an agent and a session that are there"
fuzz --config-file "$work/there.toml" || failed=1
if grep -E ' (ERROR|panicked)' "$work/log"; then failed=1; fi
exit ${failed:-0}
