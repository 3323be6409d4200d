"""Packages: made, published, pulled and inspected; models that are guests of the sandbox, on the real binary."""

import filecmp, json, os, pathlib, random, shutil, signal, socket, subprocess, time, tomllib, urllib.error, urllib.request

import openai, pytest

from conftest import BINARY, ROOT, Network

PACKAGES = ROOT / "target/guests/packages"


def built(example):
    """A package that guests/build.sh makes."""
    path = PACKAGES / example
    assert path.exists(), f"{path} is not there: run guests/build.sh"
    return path


def with_module(directory, name, module):
    """The package of a tool with another module."""
    shutil.copytree(built("text-facts"), directory)
    manifest = (directory / "model.toml").read_text()
    (directory / "model.toml").write_text(manifest.replace('"text-facts"', f'"{name}"').replace("2000000000", "50000000"))
    (directory / "model.wasm").write_bytes(module)
    return directory


def ask_json(base_url, api_key, **body):
    request = urllib.request.Request(
        base_url + "/v1/json", json.dumps(body).encode(),
        {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def althing(*args, check=True, **env):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, env=os.environ | env, timeout=180)
    assert not check or done.returncode == 0, done.stderr
    return done


class Roles:
    """A coordinator, two providers and a gateway, each a process."""

    def __init__(self, directory):
        self.dir, self.running = directory / "net", {}
        rng = random.SystemRandom()
        while True:
            self.base = rng.randrange(30000, 40000, 100)
            try:
                for offset in [0, 20, 40, 41, 60]:
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", self.base + offset))
                break
            except OSError:
                continue
        althing("init", self.dir, "--coordinators", 1, "--providers", 2, "--dev-windows", "--port-base", self.base)
        self.node, self.gateway = self.url(20), self.url(60)

    def url(self, offset):
        return f"http://127.0.0.1:{self.base + offset}"

    def start(self, role, home, answers):
        log = open(self.dir / f"{home.replace('/', '-')}.log", "w")
        process = subprocess.Popen([BINARY, role, "--home", self.dir / home], stdout=log, stderr=log)
        self.running[home] = process
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(answers, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                output = pathlib.Path(log.name).read_text()
                assert process.poll() is None and time.monotonic() < end, output
                time.sleep(0.1)

    def stop(self):
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(30)


def serve(home, *models, sources):
    """Has a provider serve models, and look for their packages there."""
    path = home / "provider.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("models =", "content_sources ="))]
    lines = [f"models = {json.dumps(models)}", f"content_sources = {json.dumps(sources)}", *lines]
    path.write_text("\n".join(lines) + "\n")
    assert tomllib.loads(path.read_text())["models"] == list(models)


def test_a_model_is_packed_published_pulled_and_run_elsewhere_with_equal_bits(tmp_path):
    roles = Roles(tmp_path)
    one, other = roles.dir / "providers/0", roles.dir / "providers/1"
    wallet, package = roles.dir / "wallets/maker.key", built("llama")
    try:
        roles.start("node", "coordinators/0", roles.node + "/v1/status")
        althing(
            "model", "publish", "guest-llama", package, "--home", one, "--wallet", wallet, "--node", roles.node,
        )
        cid = json.loads(althing("model", "show", "guest-llama", "--node", roles.node).stdout)["package"]
        assert cid == json.loads(althing("model", "inspect", package, "--json").stdout)["cid"]

        # The second provider has nothing but the first one's address.
        serve(one, "guest-llama", sources=[])
        serve(other, "guest-llama", sources=[roles.url(40)])
        roles.start("provider", "providers/0", roles.url(40))
        roles.start("provider", "providers/1", roles.url(41))
        roles.start("gateway", "gateway", roles.gateway + "/healthz")

        # Anybody else pulls it by its name, from whoever serves it.
        store, out = tmp_path / "store", tmp_path / "pulled"
        pulled = json.loads(althing(
            "model", "pull", "guest-llama", "--node", roles.node, "--store", store, "-o", out, "--json",
        ).stdout)
        assert pulled["cid"] == cid and pulled["fetched_bytes"] > 1_000_000
        names = sorted(path.name for path in package.iterdir())
        assert filecmp.cmpfiles(package, out, names, shallow=False)[0] == names
        again = json.loads(althing("model", "pull", cid, "--store", store, "--json").stdout)
        assert again["fetched_bytes"] == 0
        inspected = json.loads(althing("model", "inspect", cid, "--store", store, "--json").stdout)
        assert inspected["manifest"]["runtime"] == "wasm/1" and sorted(inspected["files"]) == names

        key = json.loads((roles.dir / "gateway/api-keys.json").read_text())
        key = (key["keys"] if isinstance(key, dict) else key)[0]["api_key"]
        client = openai.OpenAI(base_url=roles.gateway + "/v1", api_key=key, max_retries=0, timeout=120)
        question = [{"role": "user", "content": "Tell me a story about a fox"}]
        raced = client.chat.completions.create(model="guest-llama:open", messages=question)
        provenance = raced.model_extra["althing"]
        # Whoever did not answer ran it too, and had the same bits.
        assert provenance["verification"] == "agreed" and provenance["agreed_by"]
        assert "fox" in raced.choices[0].message.content
        assert raced.usage.completion_tokens > 10
        streamed = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(model="guest-llama", messages=question, seed=7, stream=True)
            if chunk.choices
        )
        # On the strict kernels it says what the shipped model says.
        receipt = urllib.request.urlopen(roles.gateway + provenance["receipt"]).read()
        (tmp_path / "receipt.json").write_bytes(receipt)
        althing("verify", "--network-key", roles.dir / "network-key", "--rerun", tmp_path / "receipt.json", "--package", out)
        assert streamed
    finally:
        roles.stop()


def test_a_tool_answers_in_json_through_orders(tmp_path):
    network = Network(tmp_path, "--model", built("text-facts"))
    try:
        key = network.ready["api_key"]
        text = {"text": "The law is the law."}
        for model, level in [("text-facts", "none"), ("text-facts:open", "agreed")]:
            status, answer = ask_json(network.gateway, key, model=model, input=text)
            assert status == 200, answer
            assert answer["output"]["words"] == 5 and answer["output"]["frequent"][0] == ["law", 2]
            assert answer["althing"]["verification"] == level
        for body, expected, code in [
            ({"model": "text-facts", "input": [1]}, 400, "invalid_input"),
            ({"model": "tiny-stories", "input": text}, 400, "wrong_interface"),
            ({"model": "nothing", "input": text}, 404, "model_not_found"),
            ({"model": "text-facts"}, 400, None),
        ]:
            status, answer = ask_json(network.gateway, key, **body)
            assert status == expected and code in (None, answer["error"]["code"]), answer
        with pytest.raises(openai.BadRequestError) as refused:
            network.client().chat.completions.create(model="text-facts", messages=[{"role": "user", "content": "x"}])
        assert refused.value.code == "wrong_interface" and "/v1/json" in str(refused.value)
    finally:
        network.stop()


def test_a_hostile_guest_fails_its_orders_with_the_reason_and_harms_nobody(tmp_path):
    # (module (import "althing" "emit" …) (memory (export "memory") 1) (func (export "run") (loop $l br $l)) …)
    endless = bytes.fromhex(
        "0061736d01000000" "0108026000006000017f" "0303020001" "0503010001"
        "071e03066d656d6f727902000372756e00000b6162695f76657273696f6e0001"
        "0a0e02" "0700" "0340" "0c00" "0b" "0b" "0400" "4101" "0b"
    )
    package = with_module(tmp_path / "endless", "endless", endless)
    network = Network(tmp_path, "--model", package)
    try:
        for model in ["endless", "endless:open"]:
            status, answer = ask_json(network.gateway, network.ready["api_key"], model=model, input={})
            assert status == 400 and answer["error"]["code"] == "model_failed", answer
            assert answer["error"]["message"] == "the model ran out of fuel"
        # Its providers answer others as before.
        question = [{"role": "user", "content": "Tell me a story about a fox"}]
        assert network.client().chat.completions.create(model="tiny-stories:open", messages=question).choices[0].message.content
    finally:
        network.stop()


def test_a_guest_runs_without_a_network_and_says_what_it_used():
    runs = [
        json.loads(althing("model", "run", built("text-facts"), "--input", '{"text": "the law"}', "--threads", threads, "--json").stdout)
        for threads in [1, 2]
    ]
    assert runs[0]["output"]["words"] == 2 and runs[0]["fuel"] > 1000
    assert runs[0]["fuel"] == runs[1]["fuel"]
    told = althing("model", "run", built("llama"), "--prompt", "Tell me a story about a fox", "--seed", 3, "--max-tokens", 20)
    assert len(told.stdout) > 20 and "fuel" in told.stderr and "a Llama of 4 layers" in told.stderr
    for args, expected in [
        (["--prompt", "x"], "takes JSON"), (["--input", "[]"], "the input is"), ([], "--prompt"),
        (["--input", "{}", "--transcript", "x.json"], "no transcripts"),
    ]:
        done = althing("model", "run", built("text-facts"), *args, check=False)
        assert done.returncode != 0 and expected in done.stderr, (args, done.stderr)


def test_packages_are_checked_before_anybody_relies_on_them(tmp_path):
    facts = built("text-facts")
    store = tmp_path / "store"
    packed = json.loads(althing("model", "pack", facts, "-o", tmp_path / "facts.car", "--store", store, "--json").stdout)
    # An archive is taken in elsewhere, and is the same package.
    elsewhere = tmp_path / "elsewhere"
    imported = json.loads(althing("content", "import", tmp_path / "facts.car", "--store", elsewhere, "--json").stdout)
    assert imported["roots"] == [packed["cid"]]
    shown = althing("model", "inspect", packed["cid"], "--store", elsewhere).stdout
    assert "exact: answers are the same on every machine" in shown and "model.wasm" in shown
    other = json.loads(althing("content", "add", ROOT / "README.md", "--store", elsewhere, "--json").stdout)["cid"]
    module = (facts / "model.wasm").read_bytes().replace(b"fd_write", b"fd_wrote", 1)
    foreign = with_module(tmp_path / "foreign", "foreign", module)
    for args, expected in [
        (["pack", tmp_path / "nowhere"], "nowhere"),
        (["pack", facts, "-o", tmp_path / "facts.car"], "exists already"),
        (["pack", foreign, "--store", store], "fd_wrote"),
        (["pull", other, "--store", elsewhere], "no package"),
        (["pull", packed["cid"], "--store", tmp_path / "empty"], "name peers that have it with --from URL"),
        (["pull", "text-facts", "--store", store], "is no CID"),
        (["inspect", packed["cid"], "--store", tmp_path / "empty"], "althing model pull"),
        (["inspect", "nonsense"], "neither a file or directory nor a CID"),
    ]:
        done = althing("model", *args, check=False)
        assert done.returncode != 0 and expected in done.stderr, (args, done.stderr)
