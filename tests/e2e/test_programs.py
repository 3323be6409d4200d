"""Programs with the real binary: the examples, and one that is killed again and again. (T-15)"""

import subprocess, time

import pytest

from conftest import BINARY, ROOT

PROGRAMS = ROOT / "examples/programs"


def orders_of(run):
    return [line["order"] for line in run["orders"] if line["state"] == "answered"]


@pytest.mark.parametrize("name", ["storyboard", "competition"])
def test_an_example_runs_to_its_end_within_its_budget(network, tmp_path, name):
    run = network.json("program", "run", PROGRAMS / f"{name}.toml", "--dir", tmp_path / "run")
    assert run["done"] and int(run["spent"]) <= int(run["budget"])
    for line in run["orders"]:
        order = network.json("order", "show", line["order"])
        assert order["parent"] == line["parent"] and order["submitted_ms"] == line["ordered_ms"]
    again = network.althing("program", "run", PROGRAMS / f"{name}.toml", "--dir", tmp_path / "run", check=False)
    assert again.returncode != 0 and "holds a run already" in again.stderr


def test_entries_of_a_competition_are_found_by_their_parent_and_judged(network, tmp_path):
    opening = network.althing("order", "submit", "tiny-stories", "Tell me a story about a fox").stdout.strip()
    entry = ("program", "run", PROGRAMS / "competition-entry.toml", "--parent", opening)
    entries = [orders_of(network.json(*entry, "--dir", tmp_path / str(index)))[0] for index in range(2)]
    listed = network.json("order", "list", "--parent", opening)
    assert {order["id"] for order in listed} == set(entries)
    judge = network.json("program", "run", PROGRAMS / "competition-judge.toml", "--parent", opening,
                         "--orders", "entries=" + ",".join(entries), "--dir", tmp_path / "judge")
    assert len(orders_of(judge)) == 1


def test_a_program_that_is_killed_again_and_again_pays_each_step_once(network, tmp_path):
    run = tmp_path / "run"
    wallet, node = network.ready["wallet"], network.node
    start = ["program", "run", PROGRAMS / "work-log.toml", "--dir", run]
    before = {order["id"] for order in network.json("order", "list")}
    for attempt in range(12):
        command = ["program", "resume", run] if (run / "journal.json").exists() else start
        process = subprocess.Popen([BINARY, *map(str, command), "--wallet", wallet, "--node", node],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.1 + 0.13 * attempt)
        process.kill()
        process.wait()
    network.althing("program", "resume", run)
    shown = network.json("program", "show", run)
    new = {order["id"] for order in network.json("order", "list")} - before
    assert set(orders_of(shown)) == new and len(new) == 4
