#!/bin/sh
# Whether this machine can build and run a local fleet: one line for each thing that is missing, and how many
# minutes the build will take. It changes nothing.
set -u

home=${DOTMAC_HOME:-.dotmac}
target=${CARGO_TARGET_DIR:-target}
base=${DOTMAC_PORT_BASE:-8000}
cargo=${CARGO:-cargo}
failed=0

miss() {
    echo "preflight: $*" >&2
    failed=1
}

# Mebibytes free on the disk that holds $1 (or the nearest directory above it that exists).
free_mib() {
    place=$1
    while [ ! -e "$place" ]; do place=$(dirname "$place"); done
    df -Pk "$place" | awk 'NR == 2 { printf "%d", $4 / 1024 }'
}

built=1
for program in dotmac dotmac-controller dotmac-agent demo-isp; do
    [ -x "$target/debug/$program" ] || built=0
done

command -v "$cargo" >/dev/null 2>&1 || miss "cargo is missing: install Rust 1.95 or newer from https://rustup.rs"
command -v cc >/dev/null 2>&1 || miss "a C compiler (cc) is missing: install gcc or clang"
case $base in
'' | *[!0-9]*) miss "DOTMAC_PORT_BASE=$base is not a number" ;;
*) [ "$base" -ge 1024 ] && [ "$base" -le 64900 ] || miss "DOTMAC_PORT_BASE=$base is not within 1024 to 64900" ;;
esac

if [ "$built" = 1 ]; then disk_mib=1024 memory_mib=512; else disk_mib=6144 memory_mib=2048; fi
free=$(free_mib "$target")
[ "$free" -ge "$disk_mib" ] || miss "the disk of $target has $free MiB free, $disk_mib are needed to build"
free=$(free_mib "$home")
[ "$free" -ge 512 ] || miss "the disk of $home has $free MiB free, 512 are needed: DOTMAC_HOME names another directory"
if [ -r /proc/meminfo ]; then
    free=$(awk '/^MemAvailable:/ { printf "%d", $2 / 1024 }' /proc/meminfo)
    [ "$free" -ge "$memory_mib" ] || miss "$free MiB of memory are available, $memory_mib are needed"
fi

# A fleet that exists has its ports, perhaps open at this moment: `dotmac local up` looks after those.
if [ ! -e "$home/fleet.json" ] && [ "$failed" = 0 ] && [ -r /proc/net/tcp ]; then
    taken() { # protocol port
        hex=$(printf '%04X' "$2")
        cat "/proc/net/$1" "/proc/net/${1}6" 2>/dev/null |
            awk -v port="$hex" -v state="$3" 'split($2, at, ":") == 2 && at[2] == port && (state == "" || $4 == state) { found = 1 } END { exit !found }'
    }
    for offset in 0 1 2 20 21 22 23 24; do
        port=$((base + offset))
        taken tcp "$port" 0A && miss "TCP port $port is in use: DOTMAC_PORT_BASE (now $base) moves every port"
    done
    for offset in 10 11 12; do
        port=$((base + offset))
        taken udp "$port" "" && miss "UDP port $port is in use: DOTMAC_PORT_BASE (now $base) moves every port"
    done
fi

[ "$failed" = 0 ] || exit 1
[ "$built" = 0 ] || exit 0

# A cold build takes 3 to 8 minutes of one core (measured on two machines of 2 cores); what is compiled already counts.
cores=$(nproc 2>/dev/null || echo 1)
packages=$(grep -c '^\[\[package\]\]' Cargo.lock)
compiled=0
[ ! -d "$target/debug/.fingerprint" ] || compiled=$(ls "$target/debug/.fingerprint" | sed 's/-[0-9a-f]*$//' | sort -u | wc -l)
left=$((packages > compiled ? packages - compiled : 0))
minutes=$(((6 * left + packages * cores - 1) / (packages * cores) + 1))
echo "the first build takes about $minutes minutes on $cores cores; later ones take seconds"
