#!/bin/sh
# Asks a fleet of its own everything that the OpenAPI document allows and forbids, and judges every answer by it
# (schemathesis). usage: fuzz-api.sh [EXAMPLES]; EXAMPLES a operation, 200 if not given.
#
# The programs come from $CARGO_TARGET_DIR/debug (target/debug), the fuzzer from PyPI, once, by digest, into
# $DOTMAC_PEERS (target/peers). Without Python 3.11 or the network it says so and ends well, except in CI (CI=true).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
peers=${DOTMAC_PEERS:-$target/peers}
python=${PYTHON:-python3}
examples=${1:-200}
base=${DOTMAC_FUZZ_PORT_BASE:-18000}

skip() {
    echo "fuzz-api: $*" >&2
    case ${CI:-} in true | 1) exit 1 ;; *) echo "fuzz-api: skipped" >&2 && exit 0 ;; esac
}

# Makes the fuzzer's environment, if it is not there as a whole.
prepare() {
    wanted=$here/schemathesis/requirements.txt
    venv=$peers/schemathesis-$(cksum <"$wanted" | tr ' ' '-')
    [ -f "$venv/complete" ] && return
    command -v "$python" >/dev/null || skip "Python 3.11 or newer is needed ($python is not there; PYTHON names another)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "$python is older than 3.11 (PYTHON names another)"
    echo "fuzz-api: fetching schemathesis once into $peers"
    mkdir -p "$peers"
    rm -rf "$venv"
    "$python" -m venv "$venv" || skip "$python has no venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$wanted" ||
        skip "schemathesis could not be fetched"
    touch "$venv/complete"
}

# Runs one of the fleet's own programs.
dotmac() {
    "$home/bin/dotmac" --home "$home" "$@"
}

finish() {
    status=$?
    trap - EXIT INT TERM
    dotmac local down >"$home/down.log" 2>&1 || echo "fuzz-api: the fleet did not stop, see $home" >&2
    if [ "$status" = 0 ]; then rm -rf "$home"; else echo "fuzz-api: logs are in $home" >&2; fi
    exit "$status"
}

prepare
mkdir -p "$target/fuzz-api"
home=$(mktemp -d "$target/fuzz-api/fleet.XXXXXX")
mkdir "$home/bin"
for program in dotmac dotmac-controller dotmac-agent demo-isp; do cp "$target/debug/$program" "$home/bin/"; done
trap finish EXIT
trap 'exit 130' INT TERM
dotmac local up --detach --port-base "$base" --grace-ms 1000 >"$home/up.log" 2>&1 || {
    cat "$home/up.log" >&2
    exit 1
}
cd "$root"
DOTMAC_TOKEN=$(cat "$home/admin.token")
export DOTMAC_TOKEN
"$venv/bin/schemathesis" --config-file "$root/schemathesis.toml" run "http://127.0.0.1:$base/openapi.json" \
    --checks all --max-examples "$examples" ${FUZZ_ARGUMENTS:-}
