#!/usr/bin/env python3
"""Writes crates/ledger/tests/vectors/emission.csv: the emission curve in 120-digit decimals. (T-6)

The ledger computes the same with integers; `crates/ledger/tests/emission.rs` compares them. Each row:
cap, halving time in ms, elapsed ms, supply, then target, multiplier (18 decimals) and reward for a base
of one token, all in base units, rounded down.
"""

import decimal, pathlib, random
from decimal import Decimal as D

decimal.getcontext().prec = 120
UNIT, YEAR_MS = 10**18, 31_536_000_000


def floor(value):
    return int(value.to_integral_value(rounding=decimal.ROUND_FLOOR))


def row(cap, halving_ms, elapsed_ms, supply):
    target = floor(D(cap) - D(cap) * D(2) ** (-D(elapsed_ms) / D(halving_ms)))
    if target == 0 or (supply >= target and 100 * (supply - target) >= 20 * target):
        multiplier = D(0)
    else:
        exponent = 100 * (D(target) - D(supply)) / D(target)
        multiplier = D(100) if exponent > 7 else min(D(100), D(2) ** exponent)
    left = max(0, cap - supply)
    reward = floor(UNIT * multiplier * left / D(cap)) if left else 0
    return cap, halving_ms, elapsed_ms, supply, target, floor(multiplier * UNIT), reward


def main():
    rng = random.Random(6)
    rows = []
    for cap in (600_000 * UNIT, 1_000_000 * UNIT, 300_000 * UNIT, 12_345_678_901_234_567):
        for _ in range(400):
            halving_ms = rng.choice([YEAR_MS, 3_600_000, rng.randrange(1_000, 10 * YEAR_MS)])
            elapsed_ms = rng.randrange(0, 12 * halving_ms)
            target = row(cap, halving_ms, elapsed_ms, 0)[4]
            # Supplies around the target are where the curve matters.
            supply = min(cap, max(0, target + target * rng.randrange(-130_000, 230_000) // 1_000_000))
            rows.append(row(cap, halving_ms, elapsed_ms, supply))
        for elapsed_ms in (0, 1, YEAR_MS // 2, YEAR_MS, 7 * YEAR_MS, 300 * YEAR_MS):
            for supply in (0, 1, cap // 2, cap - 1, cap):
                rows.append(row(cap, YEAR_MS, elapsed_ms, supply))
    path = pathlib.Path(__file__).resolve().parents[1] / "crates/ledger/tests/vectors/emission.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(",".join(map(str, r)) + "\n" for r in rows))


if __name__ == "__main__":
    main()
