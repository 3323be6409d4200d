"""Inputs that are not in their orders: fetched from wherever the order says, verified, and only where that may be asked."""

import json, pathlib, re, urllib.request

import openai, pytest

from conftest import Network, enact, get, until
from test_packages import Roles, serve

# As JSON, control characters take six bytes each: this is more than fits into an order.
LONG = ["\x01" * 200] * 4


def enact_reward(network):
    """Runs of the model earn, so that coordinators are asked to fetch inputs."""
    model = get(network, "/v1/models")[0]
    reward = {"call": "model_reward_set", "model": model["id"], "reward": {"rate": 1_000_000, "unit_bytes": 1}}
    enact(network, network.ready["wallet"], [reward])


def test_a_long_input_is_fetched_by_coordinators_and_earns(tmp_path):
    """T-21, T-6: on the real binary, from a vote on the reward to what an order with a long input earned."""
    network = Network(tmp_path, "--coordinators", "4", "--providers", "2")
    try:
        enact_reward(network)
        issued = int(get(network, "/v1/supply")["issued"])
        answer = network.client().chat.completions.create(
            model="tiny-stories:open", messages=[{"role": "user", "content": "Tell me a story about an owl"}], stop=LONG,
        )
        assert "owl" in answer.choices[0].message.content.lower()
        order = get(network, "/v1/orders/" + answer.model_extra["althing"]["order"])
        assert order["input"]["kind"] == "content" and order["input"]["size"] > 4096
        assert order["input"]["source"] == network.gateway
        assert order["availability"] == {"kind": "shown"}
        until("the claim", 40, lambda: get(network, "/v1/supply")["escrowed"] == "0")
        assert int(get(network, "/v1/supply")["issued"]) > issued
    finally:
        network.stop()


class Processes(Roles):
    """A network of processes of which nobody knows where inputs are, but for what orders say."""

    althing, json = Network.althing, Network.json

    def __init__(self, directory):
        super().__init__(directory)
        self.ready = {"wallet": self.dir / "wallets/client.key"}
        for provider in ["providers/0", "providers/1"]:
            serve(self.dir / provider, "tiny-stories", sources=[])
        self.set("coordinators/0/node.toml", "content_sources", "[]")

    def set(self, path, name, value):
        path = self.dir / path
        text, count = re.subn(f"(?ms)^{name} = (\\[.*?\\]|[^\n]*)$", f"{name} = {value}", path.read_text())
        assert count == 1, path.read_text()
        path.write_text(text)

    def start_all(self):
        self.start("node", "coordinators/0", self.node + "/v1/status")
        self.start("provider", "providers/0", self.url(40))
        self.start("provider", "providers/1", self.url(41))
        self.start("gateway", "gateway", self.gateway + "/healthz")

    def log(self, home):
        return (self.dir / f"{home.replace('/', '-')}.log").read_text()

    def order(self, *args):
        """Submits an order; its id, and what was said about it."""
        done = self.althing("order", "submit", "tiny-stories", *args)
        return done.stdout.strip(), done.stderr

    def order_when(self, order, limit_s, done):
        def found():
            now = get(self, "/v1/orders/" + order)
            return now if done(now) else None
        return until(f"order {order} is done", limit_s, found)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    processes = Processes(tmp_path_factory.mktemp("processes"))
    try:
        processes.start_all()
        enact_reward(processes)
        yield processes
    finally:
        processes.stop()


def question(directory, animal):
    """A file with what a chat model takes, too long for an order."""
    path = directory / "question.json"
    messages = [{"role": "user", "content": f"Tell me a story about a {animal}"}]
    path.write_text(json.dumps({"messages": messages, "max_tokens": 40, "stop": LONG}))
    assert path.stat().st_size > 4096
    return path


def test_an_input_comes_from_where_its_order_says(processes, tmp_path):
    """T-1, T-21: neither the coordinator nor a provider has any source of its own."""
    keys = json.loads((processes.dir / "gateway/api-keys.json").read_text())
    key = (keys["keys"] if isinstance(keys, dict) else keys)[0]["api_key"]
    client = openai.OpenAI(base_url=processes.gateway + "/v1", api_key=key, max_retries=0, timeout=120)
    answer = client.chat.completions.create(
        model="tiny-stories:open", messages=[{"role": "user", "content": "Tell me a story about an owl"}], stop=LONG,
    )
    provenance = answer.model_extra["althing"]
    assert "owl" in answer.choices[0].message.content.lower() and provenance["agreed_by"]
    order = get(processes, "/v1/orders/" + provenance["order"])
    assert order["input"]["source"] == processes.gateway and order["availability"] == {"kind": "shown"}

    # From a store of one's own, which a role serves: a file for a model of any interface.
    path, home = question(tmp_path, "fox"), processes.dir / "gateway"
    order, said = processes.order("--input", path, "--home", home)
    assert f"{processes.gateway} becomes public" in said and "cannot be had" not in said
    solved = processes.order_when(order, 60, lambda order: order["agreements"])
    assert solved["input"] == {
        "kind": "content", "cid": solved["input_cid"], "size": path.stat().st_size, "source": processes.gateway,
    }
    assert solved["availability"] == {"kind": "shown"}
    output = solved["solutions"][0]["output"]
    text = processes.althing("content", "get", output, "--from", processes.url(40), "--from", processes.url(41),
                             "--store", tmp_path / "store").stdout
    assert "fox" in json.loads(text)["text"].lower()

    # What somebody has already, by its name.
    size = str(path.stat().st_size)
    args = ["--input-cid", solved["input_cid"], "--input-bytes", size, "--source", processes.gateway]
    order, _ = processes.order(*args, "--seed", "7", "--agreements", "0")
    processes.order_when(order, 60, lambda order: order["solutions"])

    for args, expected in [
        (["--input", path], "name the gateway or provider that is to serve it with --home"),
        (["--input", path, "a question"], "cannot be used with"),
        ([], "required"),
        (["--input-cid", solved["input_cid"]], "--input-bytes"),
        (["--input", path, "--source", "ftp://a"], "starts with http:// or https://"),
        (["--input", path, "--source", "http://me:secret@a"], "no user name or password"),
        (["--input", tmp_path / "nothing"], "cannot read"),
    ]:
        refused = processes.althing("order", "submit", "tiny-stories", *args, check=False)
        assert refused.returncode != 0 and expected in refused.stderr, (args, refused.stderr)


def test_a_private_source_is_not_asked_unless_the_settings_allow_it(processes, tmp_path):
    """T-1, T-17, T-21: it is refused in the log of whoever would have asked, and the order ends refunded."""
    processes.stop()
    for path in ["coordinators/0/node.toml", "providers/0/provider.toml", "providers/1/provider.toml"]:
        processes.set(path, "sources_private", "false")
    processes.start_all()
    order, _ = processes.order("--input", question(tmp_path, "cat"), "--home", processes.dir / "gateway", "--within-s", 30)
    ended = processes.order_when(order, 60, lambda order: order["state"]["state"] == "refunded")
    assert ended["availability"] == {"kind": "not_shown"} and ended["solutions"] == []
    for home in ["coordinators/0", "providers/0", "providers/1"]:
        log = processes.log(home)
        assert f"{processes.gateway}: 127.0.0.1 is not asked, since 127.0.0.1 is no public address" in log, log
    # They serve others as before.
    order, _ = processes.order("Tell me a story about a fox")
    processes.order_when(order, 60, lambda order: order["agreements"])
