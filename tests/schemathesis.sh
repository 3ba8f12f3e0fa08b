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
server=
finish() {
    if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet schemathesis; }

# Over TCP with a token, as others come in. What is asked without one is answered 10 times a second, so some 429 are seen.
SUPERSERVE_SESSION_EXPIRE_AFTER=never SUPERSERVE_SERVER_RATE_LIMIT=never \
    "$superserve" serve --listen 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in $(seq 100); do
    url=$(sed -n 's/.*listening on \(http:.*\)/\1/p' "$work/log")
    [ -n "$url" ] && break
    sleep 0.1
done

# fuzz NAME [FLAGS]: with a token of its own.
fuzz() {
    local token
    echo "== $1"
    token=$("$superserve" tokens create "$(tr -d ' ' <<<"$1")" --scope admin 2>/dev/null | tail -1)
    shift
    (cd "$work" && "$venv/bin/schemathesis" "${config[@]}" run "$url/v1/openapi.json" --url "$url" --header "Authorization: Bearer $token" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,ignored_auth \
        --continue-on-failure --request-timeout 30 --max-examples "$cases" --no-color "$@")
}

# The watch has no end, nothing is left to ask after the stop, and the fuzzer finds its own token among those to revoke.
except=(--exclude-operation-id server_stop --exclude-operation-id sessions_watch --exclude-operation-id tokens_revoke)

"$superserve" deploy --dir tests/agents/echo -y 2>/dev/null
config=()
fuzz "what it makes up" "${except[@]}" || failed=1

"$superserve" deploy --dir tests/agents/echo -y 2>/dev/null || true
session=$("$superserve" eval 'sessions::create("echo").id')
cat >"$work/there.toml" <<TOML
[parameters]
"path.agent" = "echo"
"path.id" = "$session"
"path.path" = "notes/a.txt"
TOML
config=(--config-file "$work/there.toml")
fuzz "what is there" "${except[@]}" || failed=1
config=()
fuzz "tokens" --include-operation-id tokens_revoke || failed=1
if grep -E ' (ERROR|panicked)' "$work/log"; then failed=1; fi
exit ${failed:-0}
