#!/bin/sh
# The golden digests on processors that this machine does not have: aarch64 and an x86-64 with SSE2
# alone in qemu, WebAssembly in wasmtime. docs/testing.md says what is covered and what is not.
set -eu
cd "$(dirname "$0")/.."
cross=$PWD/target/cross

# Debian's compiler beside yours: it comes with the source of its standard library, which is built
# for each target, so nothing has to be there for a target but a linker and a C library.
packages="cargo-web rustc-web rust-web-src lld-19 wasi-libc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
. tests/packages.sh
need $packages
if [ ! -x "$cross/python/bin/pip" ] || ! cmp -s tests/golden/requirements.txt "$cross/requirements.txt"; then
    python3 -m venv "$cross/python"
    "$cross/python/bin/pip" install --quiet --disable-pip-version-check -r tests/golden/requirements.txt
    cp tests/golden/requirements.txt "$cross/requirements.txt"
fi

# On aarch64 linked statically: the emulator would mix two C libraries. In WebAssembly the C library
# has no threads; what would start one is never called, as its pool has one thread.
wasi=/usr/lib/wasm32-wasi
env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$cross" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-Ctarget-feature=+crt-static" \
    CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld-19 \
    CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-Ctarget-feature=+simd128 -Clink-self-contained=no -L$wasi -Clink-arg=$wasi/crt1-command.o -Clink-arg=--unresolved-symbols=ignore-all" \
    /usr/bin/cargo build --quiet --locked --profile cross -p althing-golden \
    --target aarch64-unknown-linux-gnu --target wasm32-wasip1 -Zbuild-std=std,panic_abort -Zbuild-std-features=
# As `./test.sh` has built it, if it has.
cargo build --quiet --locked --release ${ALTHING_BUILT:--p althing-golden -p althing-golden-guests}

# The guests, where the sandbox compiles them for another processor.
env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$cross" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-Ctarget-feature=+crt-static" \
    /usr/bin/cargo build --quiet --locked --profile cross -p althing-golden-guests \
    --target aarch64-unknown-linux-gnu -Zbuild-std=std,panic_abort -Zbuild-std-features=
guests/build.sh --check

failed=0
# check NAME PROGRAM ARGUMENTS -- COMMAND…: the command, the program and its arguments. What passed once
# is not run again: the same program gives the same bits.
check() {
    name=$1 program=$2 arguments=$3
    shift 4
    stamp=$cross/passed/$(echo "$name" | tr -c 'a-z0-9\n' -)
    now="$(sha256sum <"$program") $arguments $*"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
        echo "$name: the program has not changed since it passed"
        return
    fi
    echo "$name:"
    if "$@" "$program" $arguments; then
        mkdir -p "$cross/passed"
        echo "$now" >"$stamp"
    else
        echo "  FAILED"
        failed=1
    fi
}
arm=$cross/aarch64-unknown-linux-gnu/cross/althing-golden
wasm=$cross/wasm32-wasip1/cross/althing-golden.wasm
here=target/release/althing-golden
check "aarch64" "$arm" "2 scalar neon" -- qemu-aarch64 -cpu cortex-a72
check "aarch64 with dot products" "$arm" "2 neon" -- qemu-aarch64 -cpu max
check "wasm32" "$wasm" "1 scalar simd128" -- "$cross/python/bin/python" tests/golden/wasm.py
if [ "$(uname -m)" = x86_64 ]; then
    check "x86-64 without avx" "$here" "2 sse2" -- qemu-x86_64 -cpu Nehalem
    check "x86-64 with avx2" "$here" "2 avx2" -- qemu-x86_64 -cpu max
fi
# The same fuel and the same bytes as here.
packages=target/guests/packages
target/release/althing-golden-guests "$packages" >"$cross/guests-here"
cat >"$cross/guests.sh" <<'END'
# What the guests are, the program, the packages, and where to write.
qemu-aarch64 -cpu max "$2" "$3" >"$4/guests-there" && diff "$4/guests-here" "$4/guests-there" && echo "  same bytes, same fuel"
END
guests=$(cat "$packages"/*/* "$cross/guests-here" | sha256sum)
check "guests on aarch64" "$cross/aarch64-unknown-linux-gnu/cross/althing-golden-guests" "$packages $cross" -- \
    sh "$cross/guests.sh" "${guests%% *}"
exit $failed
