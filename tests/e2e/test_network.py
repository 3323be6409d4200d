"""Liars, restarts and the command line, with the real binary."""

import json, time, urllib.error, urllib.request

from conftest import Network

ASK = [{"role": "user", "content": "Tell me a story about an owl"}]


def get(network, path):
    with urllib.request.urlopen(network.node + path) as response:
        return json.load(response)


def test_a_lie_is_contested_refuted_and_slashed_and_nobody_who_waited_saw_it(tmp_path):
    """T-7, T-8, V-1: the liar is first, and loses."""
    network = Network(tmp_path, "--liars", "1")
    try:
        liar = next(p["account"] for p in network.ready["providers"] if p["behaviour"] == "liar")
        bond = int(get(network, f"/v1/providers/{liar}")["bond"])
        issued = get(network, "/v1/supply")["issued"]
        for _ in range(20):
            completion = network.client().chat.completions.create(model="tiny-stories:open", messages=ASK)
            facts = completion.model_extra["althing"]
            assert "owl" in completion.choices[0].message.content.lower(), "what was waited for is no lie"
            assert facts["provider"] != liar and facts["verification"] == "agreed"
            record = get(network, f"/v1/providers/{liar}")
            if int(record["bond"]) < bond:
                break
        else:
            raise AssertionError("the liar was never first")
        assert record["jailed_until_ms"] > 0
        supply = get(network, "/v1/supply")
        assert supply["issued"] == issued and int(supply.pop("issued")) == sum(map(int, supply.values()))
        cases = [get(network, f"/v1/cases/{o['id']}") for o in get(network, "/v1/orders")
                 if urllib_exists(network, f"/v1/cases/{o['id']}")]
        assert [c["outcome"] for c in cases if c["solver"] == liar] == ["refuted"]
    finally:
        network.stop()


def urllib_exists(network, path):
    try:
        get(network, path)
        return True
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return False


def test_a_second_start_continues_the_same_ledger(tmp_path):
    network = Network(tmp_path)
    answered = network.client().chat.completions.create(model="tiny-stories", messages=ASK)
    order, height = answered.model_extra["althing"]["order"], get(network, "/v1/status")["height"]
    root = network.althing("node", "status", "--height", 3).stdout
    network.stop()
    (tmp_path / "ready.json").unlink()
    network = Network(tmp_path)
    try:
        assert get(network, "/v1/status")["height"] >= height
        assert network.json("order", "show", order)["id"] == order
        assert network.althing("node", "status", "--height", 3).stdout == root
        again = network.client().chat.completions.create(model="tiny-stories", messages=ASK)
        assert again.model_extra["althing"]["order"] != order
    finally:
        network.stop()


def test_the_command_line_does_what_it_says(tmp_path):
    network = Network(tmp_path)
    try:
        assert network.json("model", "list")[0]["name"] == "tiny-stories"
        other = network.althing("key", "new", tmp_path / "other.key").stdout.strip()
        assert network.althing("key", "show", tmp_path / "other.key").stdout.strip() == other
        assert network.json("key", "show", tmp_path / "other.key") == {"address": other}
        network.althing("transfer", other, "12.5")
        assert network.json("account", "show", other)["free"] == str(125 * 10**17)
        network.althing("account", "bond", "2", "--wallet", tmp_path / "other.key")
        shown = network.json("account", "show", other)
        # Less the base fees of two calls and the deposit for a provider's record. (L-1)
        assert shown["bond"] == str(2 * 10**18) and 0 < 105 * 10**17 - int(shown["free"]) < 10**16
        poor = network.althing("transfer", other, "5000", check=False)
        assert poor.returncode == 1 and "insufficient balance" in poor.stderr
        assert network.althing("transfer", "0x12", "1", check=False).returncode == 2, "an address is 40 digits"
        asked = network.althing(
            "ask", "Tell me a story about a bear", "--gateway", network.gateway, "--api-key", network.ready["api_key"]
        )
        assert "bear" in asked.stdout.lower() and "receipt" in asked.stderr
        orders = network.json("order", "list")
        assert len(orders) == 1 and network.althing("order", "list").stdout.startswith("NUMBER")
        order = network.althing("order", "submit", "tiny-stories", "Tell me a story about a hen").stdout.strip()
        until = time.monotonic() + 20
        while not network.json("order", "show", order)["agreements"]:
            assert time.monotonic() < until, network.json("order", "show", order)
            time.sleep(0.1)
        late = network.althing("order", "cancel", order, check=False)
        assert late.returncode == 1 and "the order is solved" in late.stderr
        short = network.althing("order", "submit", "tiny-stories", "x", "--within-s", "1", check=False)
        assert short.returncode == 1 and "the deadline must lie between" in short.stderr
        # What a chain of orders may cost is set aside with its first. (T-15)
        client = network.json("key", "show", network.ready["wallet"])["address"]
        submit = ["order", "submit", "tiny-stories", "Tell me a story about a cat"]
        first = network.althing(*submit, "--budget", "0.5").stdout.strip()
        second = network.althing(*submit, "--parent", first, "--fee", "0.4").stdout.strip()
        assert network.json("order", "show", second)["budgeted"]
        third = network.althing(*submit, "--parent", second, "--fee", "0.2", check=False)
        assert third.returncode == 1 and "the chain's budget has" in third.stderr
        left = network.json("account", "show", client)["budgets"][0]["left"]
        assert left == str(10**17 - int(network.json("model", "list")[0]["fee"]))
        assert "order budget-close" in network.althing("account", "show", client).stdout
        network.althing("order", "budget-close", first)
        assert network.json("account", "show", client)["budgets"] == []
        assert network.json("dispute", "list") == []
        root = network.althing("node", "status", "--height", 2).stdout.strip()
        assert len(root) == 64 and network.json("node", "status", "--height", 2)["state_root"] == root
        missing = network.althing("order", "show", "00" * 32, check=False)
        assert missing.returncode == 1 and "not found" in missing.stderr
        unreachable = network.althing("model", "list", "--node", "http://127.0.0.1:9", check=False)
        assert "althing dev" in unreachable.stderr, "it says how to start one"
    finally:
        network.stop()


def test_a_network_of_four_coordinators_in_one_process(tmp_path):
    network = Network(tmp_path, "--coordinators", "4")
    try:
        completion = network.client().chat.completions.create(model="tiny-stories:open", messages=ASK)
        assert completion.model_extra["althing"]["verification"] == "agreed"
        height = get(network, "/v1/status")["height"]
        roots = set()
        until = time.monotonic() + 30
        for node in network.ready["nodes"]:
            # A coordinator may be a few blocks behind the others for a moment.
            while (at := network.althing("node", "status", "--height", height, "--node", node, check=False)).returncode:
                assert time.monotonic() < until, at.stderr
                time.sleep(0.2)
            roots.add(at.stdout)
        assert len(network.ready["nodes"]) == 4 and len(roots) == 1
    finally:
        network.stop()
