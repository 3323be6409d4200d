#!/bin/sh
# Sets up what the tests need, below target/, and runs them all.
set -eu
cd "$(dirname "$0")"

# The guests that tests run, and whether the shipped one is what its source gives.
guests/build.sh --check

command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
cargo nextest run --release --workspace

# The binary that users run. With the tests selected, crates have the features that tests asked for, and those that were
# built for them are not built again.
export ALTHING_BUILT="--workspace --bins --tests"
cargo build --release $ALTHING_BUILT

# The golden digests on other processors.
tests/cross.sh

# The official client against the binary, and servers of models behind it.
wanted=tests/e2e/requirements.txt
if ! cmp -s "$wanted" target/e2e/installed.txt; then
    python3 -m venv target/e2e
    target/e2e/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" target/e2e/installed.txt
fi
target/e2e/bin/python -m pytest -q tests/e2e "$@"
