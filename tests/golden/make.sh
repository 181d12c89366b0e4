#!/bin/sh
# Writes the golden data of a version: what one controller keeps, as the programs of that version wrote it, with snapshots,
# log, ledger, keys and genesis. Every later version must open it (controller/src/raft/golden_tests.rs).
# usage: make.sh VERSION [PROGRAMS]    writes VERSION.tar.xz beside this file; PROGRAMS is a directory with the four
# programs, by default those of `make peers PEERS=previous`. What exists is never written again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$1
programs=${2:-$here/../../target/peers/bin/previous}
archive=$here/$version.tar.xz
[ ! -e "$archive" ] || { echo "golden: $archive exists, and golden data is never written again" >&2; exit 1; }

home=$(mktemp -d)
export DOTMAC_HOME="$home" DOTMAC_GRACE_MS=1000
dotmac="$home/bin/dotmac"
trap '"$dotmac" local down >/dev/null 2>&1 || true; rm -rf "$home"' EXIT
mkdir "$home/bin"
cp "$programs"/dotmac "$programs"/dotmac-controller "$programs"/dotmac-agent "$programs"/demo-isp "$home/bin/"
"$dotmac" local up --detach

# Something of everything: an active deployment, a removed one, a suspended one, a failed request, a token, a region.
"$dotmac" deployments create --name 'Golden ISP' --wait --yes
"$dotmac" deployments create --name 'Removed ISP' --wait --yes
id_of() { "$dotmac" deployments list -o json | sed -n 's/.*"id": *"\('"$1"'-[0-9a-f]*\)".*/\1/p' | head -n 1; }
removed=$(id_of removed-isp)
golden=$(id_of golden-isp)
"$dotmac" deployments delete "$removed" --yes --wait
"$dotmac" deployments suspend "$golden" --reason 'a golden reason' --yes --wait || "$dotmac" deployments suspend "$golden" --reason 'a golden reason' --yes
"$dotmac" regions create golden-1 --description 'for golden data' --yes || true

# As many entries as it takes for a snapshot, each small, one after the other.
port=${DOTMAC_PORT_BASE:-8000}
token=$(cat "$home/admin.token")
tenant=$golden
number=0
while [ "$number" -lt 2300 ]; do
    printf 'url = "http://127.0.0.1:%s/api/v1/tenants/%s"\nrequest = PATCH\nheader = "Authorization: Bearer %s"\nheader = "Content-Type: application/json"\ndata = "{\\"tenant_name\\": \\"Golden ISP %s\\"}"\noutput = /dev/null\nnext\n' "$port" "$tenant" "$token" $((number % 3))
    number=$((number + 1))
done | sed '$d' >"$home/requests"
curl --silent --fail-early --config "$home/requests"
ls "$home"/controller-1/data/store/snapshots/*.snapshot >/dev/null || { echo "golden: no snapshot was written" >&2; exit 1; }
"$dotmac" audit verify
"$dotmac" cluster status
"$dotmac" local down

rm -f "$home"/controller-1/*.log
mkdir "$home/$version"
cp -a "$home/controller-1" "$home/genesis.json" "$home/$version/"
# Its paths are those of a home that is gone.
sed -i "s|$home|..|" "$home/$version/controller-1/controller.toml"
# Parts of the database that hold zeros only take no room.
tar -C "$home" --sort=name --owner=0 --group=0 --numeric-owner --sparse -cf - "$version" | xz -9e >"$archive"
ls -l "$archive"
