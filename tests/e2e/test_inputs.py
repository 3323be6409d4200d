"""Inputs that are not in their orders: coordinators fetch them from the gateway before the seed exists."""

from conftest import Network, enact, get, until


def test_a_long_input_is_fetched_by_coordinators_and_earns(tmp_path):
    """T-21, T-6: on the real binary, from a vote on the reward to what an order with a long input earned."""
    network = Network(tmp_path, "--coordinators", "4", "--providers", "2")
    try:
        model = get(network, "/v1/models")[0]
        reward = {"call": "model_reward_set", "model": model["id"], "reward": {"rate": 1_000_000, "unit_bytes": 1}}
        enact(network, network.ready["wallet"], [reward])
        issued = int(get(network, "/v1/supply")["issued"])
        # As JSON, control characters take six bytes each: this is more than fits into an order.
        answer = network.client().chat.completions.create(
            model="tiny-stories:open", messages=[{"role": "user", "content": "Tell me a story about an owl"}],
            stop=["\x01" * 200] * 4,
        )
        assert "owl" in answer.choices[0].message.content.lower()
        order = get(network, "/v1/orders/" + answer.model_extra["althing"]["order"])
        assert order["input"]["kind"] == "content" and order["input"]["size"] > 4096
        assert order["availability"] == {"kind": "shown"}
        until("the claim", 40, lambda: get(network, "/v1/supply")["escrowed"] == "0")
        assert int(get(network, "/v1/supply")["issued"]) > issued
    finally:
        network.stop()
