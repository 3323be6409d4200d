"""The paper's economy on a real network: governance enables a reward, runs earn it, a delegator and three
holders of a model get their parts, and who contests a right answer pays."""

from conftest import Network, enact, get, send, until

ASK = [{"role": "user", "content": "Tell me a story about an owl"}]
TOKEN = 10**18


def test_the_papers_economy_from_a_vote_to_a_lost_contest(tmp_path):
    """G-1, T-6, T-8, T-10, T-14, E-4: on the real binary, with the `dml` profile."""
    network = Network(tmp_path, "--profile", "dml")
    try:
        client, maker = network.ready["wallet"], tmp_path / "data/wallets/maker.key"
        client_address, maker_address = (network.json("key", "show", key)["address"] for key in (client, maker))
        other = tmp_path / "other.key"
        other_address = network.json("key", "new", other)["address"]
        model = get(network, "/v1/models")[0]
        assert model["reward"] is None

        # A delegator behind each provider, and a model whose fees belong to three holders.
        providers = [provider["account"] for provider in network.ready["providers"]]
        for provider in providers:
            send(network, maker, "delegate", provider=provider, amount=str(5 * TOKEN))
        send(network, maker, "dao_create", model=model["id"], shares=10)
        shares = f"shares:{model['id']}"
        send(network, maker, "asset_transfer", asset=shares, to=client_address, amount="3")
        send(network, maker, "asset_transfer", asset=shares, to=other_address, amount="2")

        # Governance enables the model's reward.
        reward = {"call": "model_reward_set", "model": model["id"], "reward": {"rate": 1_000_000, "unit_bytes": 1}}
        enact(network, client, [reward])
        assert get(network, f"/v1/models/{model['id']}")["reward"]["rate"] == 1_000_000

        # Runs earn it, until so much is issued that losers are slashed.
        issued = int(get(network, "/v1/supply")["issued"])
        assert issued < 1_000 * TOKEN, "the network starts before bonds are required"
        asked = 0
        while int(get(network, "/v1/supply")["issued"]) < 2_000 * TOKEN:
            for _ in range(5):
                network.client().chat.completions.create(model="tiny-stories:open", messages=ASK)
                asked += 1
            assert asked < 100
            until("claims", 40, lambda: get(network, "/v1/supply")["escrowed"] == "0")
        emission = get(network, "/v1/emission")
        assert int(emission["supply"]) == int(get(network, "/v1/supply")["issued"])
        earned = {p: get(network, f"/v1/accounts/{p}")["earned"] for p in providers}
        assert any(int(e["rewards"]) > 10 * TOKEN for e in earned.values()), earned

        # The delegator's part.
        before = int(get(network, f"/v1/accounts/{maker_address}")["earned"]["rewards"])
        winner = max(providers, key=lambda p: int(earned[p]["rewards"]))
        send(network, maker, "delegation_claim", provider=winner)
        got = int(get(network, f"/v1/accounts/{maker_address}")["earned"]["rewards"]) - before
        # A third of the stake, less a tenth as commission: 0.3 of the whole, 0.7 for the provider.
        whole = got + int(earned[winner]["rewards"])
        assert abs(got * 10 - whole * 3) < 10 * asked, (got, whole)

        # The holders' parts, exactly to the unit.
        fees = {}
        for name, wallet, address in [("m", maker, maker_address), ("c", client, client_address), ("o", other, other_address)]:
            earned_before = int(get(network, f"/v1/accounts/{address}")["earned"]["fees"])
            send(network, wallet, "shares_claim", model=model["id"])
            fees[name] = int(get(network, f"/v1/accounts/{address}")["earned"]["fees"]) - earned_before
        total = asked * int(model["fee"])
        assert [fees[n] for n in "mco"] == [total * 5 // 10, total * 3 // 10, total * 2 // 10]

        # Somebody contests a right answer, is outvoted, and pays.
        answer = network.client().chat.completions.create(model="tiny-stories:open", messages=ASK)
        order = answer.model_extra["althing"]["order"]
        solver = answer.model_extra["althing"]["provider"]
        index = next(i for i, p in enumerate(providers) if p != solver)
        bond = int(get(network, f"/v1/providers/{providers[index]}")["bond"])
        send(network, tmp_path / f"data/providers/{index}/wallet.key", "contest", order=order, ballot=None)
        case = until("the verdict", 40, lambda: (c := get(network, f"/v1/cases/{order}"))["outcome"] and c)
        assert case["outcome"] == "upheld"
        assert int(get(network, f"/v1/providers/{providers[index]}")["bond"]) < bond
        assert int(get(network, f"/v1/accounts/{solver}")["earned"]["slashes"]) > 0
        supply = get(network, "/v1/supply")
        assert int(supply.pop("issued")) == sum(map(int, supply.values())), "nothing was made or lost"
    finally:
        network.stop()
