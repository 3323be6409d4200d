#!/bin/sh
# Builds the guests for WebAssembly; the packages of the examples are in target/guests/packages/ then.
#
#   guests/build.sh           and puts the template engine where the program takes it from
#   guests/build.sh --check   and says whether that is what is committed
set -eu
cd "$(dirname "$0")/.."

# Debian's compiler beside yours, as in tests/cross.sh: its standard library is built for the target.
packages="cargo-web rustc-web rust-web-src lld-19 wasi-libc"
. tests/packages.sh
need $packages

# Nothing of where it was built is in the result: no paths in messages, and names that do not depend on them.
flags="-Ctarget-feature=+simd128 -Clink-arg=--stack-first -Zlocation-detail=none --remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
lib=/usr/lib/wasm32-wasi
wasi="-Clink-self-contained=no -L$lib -Clink-arg=$lib/crt1-reactor.o -Clink-arg=--unresolved-symbols=ignore-all"
build() {
    env RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$PWD/target/guests" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld-19 \
        CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$flags $wasi" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags" \
        /usr/bin/cargo build --quiet --locked --release --manifest-path guests/Cargo.toml "$@" \
        -Zbuild-std=std,panic_abort -Zbuild-std-features=
}
build --target wasm32-unknown-unknown -p althing-chat-template
# The examples are what most people would make: libraries with the C library of WASI below them, which
# has no threads; what would start one is never called.
examples=$(ls guests/examples | sed 's/^/-p althing-example-/')
build --target wasm32-wasip1 $examples
for example in $(ls guests/examples); do
    package=target/guests/packages/$example
    rm -rf "$package"
    mkdir -p "$package"
    cp guests/examples/"$example"/package/* "$package"
    cp target/guests/wasm32-wasip1/release/"althing_example_$(echo "$example" | tr - _).wasm" "$package/model.wasm"
done
for file in config.json tokenizer.json model.safetensors; do
    cp "models/tiny-stories/package/$file" target/guests/packages/llama
done

built=target/guests/wasm32-unknown-unknown/release/althing_chat_template.wasm
committed=crates/runtime/src/template/chat_template.wasm
if [ "${1:-}" != --check ]; then
    cp "$built" "$committed"
    /usr/bin/rustc --version >guests/compiler
elif [ "$(/usr/bin/rustc --version)" != "$(cat guests/compiler)" ]; then
    echo "guests: $committed was made by $(cat guests/compiler), which is not here: not compared"
elif ! cmp "$built" "$committed"; then
    echo "guests: $committed is not what its source gives: run guests/build.sh" >&2
    exit 1
fi
