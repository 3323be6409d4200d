"""The HTTP API of a node: every object can be read, events can be followed, mistakes are explained."""

import json, urllib.error, urllib.request

import pytest

ASK = [{"role": "user", "content": "Tell me a story about a cat"}]


def get(network, path):
    with urllib.request.urlopen(network.node + path, timeout=30) as response:
        return json.load(response)


def refused(network, path, body=None):
    request = urllib.request.Request(network.node + path, data=body, headers={"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    return error.value.code, json.load(error.value)["error"]


def test_every_object_can_be_read(network):
    answer = network.client().chat.completions.create(model="tiny-stories:open", messages=ASK)
    order = answer.model_extra["althing"]["order"]
    status = get(network, "/v1/status")
    assert status["height"] > 0 and status["active_ms"] <= status["time_ms"] and len(status["state_root"]) == 64
    assert get(network, "/v1/params")["challenge_window_ms"] == 8000
    model = get(network, "/v1/models/tiny-stories")
    assert model in get(network, "/v1/models") and get(network, f"/v1/models/{model['id']}") == model
    provider = get(network, "/v1/providers")[0]
    assert get(network, f"/v1/providers/{provider['account']}")["bond"] == provider["bond"]
    held = get(network, f"/v1/orders/{order}")
    client = get(network, f"/v1/accounts/{held['client']}")
    assert client["session_keys"] == 1 and int(client["free"]) > 0
    assert order in [o["id"] for o in get(network, "/v1/orders")]
    assert get(network, "/v1/cases") == []
    block = get(network, "/v1/blocks/2")
    assert block["parent"] == get(network, "/v1/blocks/1")["digest"]
    proof = get(network, f"/v1/proofs/orders/{order}")
    assert proof["order"]["id"] == order and proof["height"] <= get(network, "/v1/status")["height"]


def test_the_economy_can_be_read(network):
    """E-4, G-1, G-2: where units are, who decides what, what the market gives."""
    provider = get(network, "/v1/providers")[0]["account"]
    view = get(network, f"/v1/accounts/{provider}")
    assert int(view["bond"]) >= int(view["bond_free"]) and view["escrowed"] == [] and view["escrowed_complete"]
    assert int(view["power"]) == int(get(network, f"/v1/power/{provider}")["power"]) > 0
    protocol = get(network, "/v1/protocol")
    assert protocol["version"] <= protocol["supported"] and protocol["scheduled"] is None
    assert int(get(network, "/v1/emission")["cap"]) >= int(get(network, "/v1/emission")["supply"])
    for empty in ["/v1/proposals", "/v1/daos", "/v1/pools", f"/v1/delegations?to={provider}",
                  f"/v1/delegations?by={provider}", f"/v1/accounts/{provider}/holdings"]:
        assert get(network, empty) == [], empty
    assert get(network, "/v1/drip")["pools"] == []


def test_every_call_can_be_sent_from_the_command_line(network):
    """Calls as JSON; what has a command of its own is in the list."""
    calls = {row["call"]: row["by"] for row in network.json("call", "list")}
    assert calls["swap"] == "althing pool swap" and len(calls) == 52
    address = get(network, "/v1/providers")[0]["account"]
    before = int(get(network, f"/v1/accounts/{address}")["free"])
    sent = network.althing("call", "send", json.dumps({"call": "transfer", "to": address, "amount": "7"}))
    assert "Send 0.000000000000000007 ALTH" in sent.stderr
    assert int(get(network, f"/v1/accounts/{address}")["free"]) >= before + 7
    wrong = network.althing("call", "send", '{"call":"fly"}', check=False)
    assert wrong.returncode != 0 and "call list" in wrong.stderr
    governed = network.althing("call", "send", '{"call":"upgrade_cancel"}', check=False)
    assert governed.returncode != 0 and "proposal" in governed.stderr


def test_events_come_block_by_block_without_gaps(network):
    """E-3: from any height on, past and future alike."""
    heights, kinds = [], set()
    with urllib.request.urlopen(network.node + "/v1/events?from=1", timeout=30) as response:
        for line in response:
            if line.startswith(b"data:"):
                block = json.loads(line[5:])
                heights.append(block["height"])
                kinds |= {event["event"] for event in block["events"]}
            if len(heights) == 8:
                break
    assert heights == list(range(1, 9)) and "model_supported" in kinds


def test_mistakes_are_explained(network):
    for path, status, code in [
        ("/v1/accounts/xyz", 400, "bad_request"),
        ("/v1/orders?state=odd", 400, "bad_request"),
        ("/v1/blocks/minus", 400, "bad_request"),
        ("/v1/blocks/999999999", 404, "not_found"),
        ("/v1/orders/" + "00" * 32, 404, "not_found"),
        ("/v1/transactions/" + "00" * 32, 404, "not_found"),
        ("/v1/models/unknown", 404, "not_found"),
        ("/v1/nothing/here", 404, "not_found"),
        ("/v1/delegations", 400, "bad_request"),
        ("/v1/proposals/1", 404, "not_found"),
        ("/v1/proposals/one", 400, "bad_request"),
        ("/v1/daos/" + "00" * 32, 404, "not_found"),
        ("/v1/pools/" + "00" * 32, 404, "not_found"),
        ("/v1/quote?asset_in=native&amount_in=1&asset_out=native", 422, "same_asset"),
        ("/v1/quote?asset_in=native&amount_in=1&asset_out=test:1", 422, "unknown_pool"),
        ("/v1/quote?asset_in=gold&amount_in=1&asset_out=native", 400, "bad_request"),
    ]:
        got, error = refused(network, path)
        assert (got, error["code"]) == (status, code) and error["message"], path
    got, error = refused(network, "/v1/transactions", json.dumps({"tx": "00ff"}).encode())
    assert got == 400 and error["code"] == "bad_request"
