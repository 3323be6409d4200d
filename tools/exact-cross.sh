#!/bin/sh
# Runs the golden digests of the exact crate on another architecture, emulated: aarch64 under qemu.
#
# Needs a Rust with the standard library of that target, its C compiler for linking, and qemu-user.
# On Debian: dpkg --add-architecture arm64; apt-get update; apt-get install rustc-web
# libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; then RUSTC=/usr/bin/rustc.
set -eu
cd "$(dirname "$0")/.."
export RUSTC="${RUSTC:-rustc}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# `max` has the dot product extension; `cortex-a53` does not.
for cpu in max cortex-a53; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu"
    cargo test --release --target aarch64-unknown-linux-gnu --target-dir "${CROSS_TARGET_DIR:-target/cross}" \
        -p althing-exact --lib --test golden --test batch "$@"
done
