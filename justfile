# What CI runs, by name. `just` alone lists them.

default:
    @just --list

# Lints: format, clippy, rule ids, documentation.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    python3 tools/rules.py --check
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --document-private-items

# Every test: the README's second command.
test:
    ./test.sh

# Protocol rule ids, the functions and the tests that cite them.
rules:
    @python3 tools/rules.py

# Licences, sources, banned crates.
deny:
    cargo deny check bans licenses sources

# Figures of this machine.
bench:
    cargo run --release -- bench ledger

# A simulated network from one seed, as a failed test printed it.
simulate seed:
    ALTHING_SEED={{seed}} cargo nextest run --release -p althing-testkit --no-capture
