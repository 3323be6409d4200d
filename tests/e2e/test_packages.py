"""Packages: made, published, pulled and inspected; models that are guests of the sandbox, on the real binary."""

import filecmp, json, os, pathlib, random, shutil, signal, socket, subprocess, time, tomllib, urllib.error, urllib.request

import openai, pytest

from conftest import BINARY, ROOT, Network, until

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

    def account(self, home):
        return tomllib.loads((self.dir / home / "provider.toml").read_text())["account"]

    def api_key(self):
        keys = json.loads((self.dir / "gateway/api-keys.json").read_text())
        return (keys["keys"] if isinstance(keys, dict) else keys)[0]["api_key"]

    def client(self):
        return openai.OpenAI(base_url=self.gateway + "/v1", api_key=self.api_key(), max_retries=0, timeout=120)

    def supporters(self, model):
        return json.loads(althing("model", "show", model, "--node", self.node).stdout)["supporters"]


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

        client = roles.client()
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


def leb(number):
    """LEB128 without a sign."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + leb(rest) if rest else bytes([low])


def sleb(number):
    """With one."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if rest == (-1 if low & 0x40 else 0) else bytes([low | 0x80]) + sleb(rest)


def string(text):
    return leb(len(text)) + text.encode()


def section(kind, *items):
    content = leb(len(items)) + b"".join(items)
    return bytes([kind]) + leb(len(content)) + content


def const(number):
    return b"\x41" + sleb(number)


# Types of functions: () -> (), () -> i32, (i32, i32) -> (), (i32, i32) -> i32, (i32, i64, i32, i32) -> i32.
TYPES = ["600000", "6000017f", "60027f7f00", "60027f7f017f", "60047f7e7f7f017f"]
NO_LOCALS, LOOP, AGAIN, END, DROP, TRAP = b"\x00", b"\x03\x40", b"\x0c\x00", b"\x0b", b"\x1a", b"\x00"


def call(function):
    return b"\x10" + leb(function)


def wasm(run, imports=(), more=(), data=""):
    """A module of the ABI whose function `run` is this; imports, (module, name, type), come first in numbers."""
    types, bodies = [0, 1] + [0] * len(more), [NO_LOCALS + run, NO_LOCALS + const(1), *more]
    exports = [string("memory") + b"\x02\x00"]
    exports += [string(name) + b"\x00" + leb(len(imports) + at) for at, name in enumerate(["run", "abi_version"])]
    return b"\0asm\1\0\0\0" + b"".join([
        section(1, *map(bytes.fromhex, TYPES)),
        section(2, *(string(module) + string(name) + b"\x00" + leb(of) for module, name, of in imports)),
        section(3, *map(leb, types)),
        section(5, b"\x00\x01"),
        section(7, *exports),
        section(10, *(leb(len(body) + 1) + body + END for body in bodies)),
        section(11, b"\x00" + const(0) + END + string(data)),
    ])


def slow():
    """What takes a compiler longest: many branches, each with many locals at hand."""
    get, put = lambda at: b"\x20" + leb(at), lambda at: b"\x21" + leb(at)
    zero, add, branch = b"\x50", b"\x7c", b"\x04\x40"
    steps = (
        get(i * 7 % 990) + zero + branch + get(i * 29 % 990) + get(i * 7 % 990) + add + put(i * 13 % 990) + END
        for i in range(14_000)
    )
    return b"\x01" + leb(990) + b"\x7e" + LOOP + b"".join(steps) + get(5) + zero + b"\x0d\x00" + END


GROW, FILE = const(1) + b"\x40\x00", "tokenizer.json"
# By name: a guest whose runs mean harm, and what its orders say.
FAILING = {
    "endless-loop": (wasm(LOOP + AGAIN + END), "the model ran out of fuel"),
    # Grows until it gets a no, and does not take that for an answer.
    "memory-bomb": (
        wasm(LOOP + GROW + const(-1) + b"\x47\x0d\x00" + END + TRAP),
        "the model needs more memory than its package allows",
    ),
    "deep-recursion": (wasm(call(0)), "the model's calls nest too deeply"),
    "huge-output": (
        wasm(LOOP + const(0) + const(100) + call(0) + AGAIN + END, [("althing", "emit", 2)]),
        "the output is larger than 65536 bytes, the most that the package allows",
    ),
    # A file of tiny-stories, which the same provider serves.
    "foreign-blobs": (
        wasm(
            const(0) + const(len(FILE)) + call(0) + b"\x42\x00" + const(64) + const(8) + call(1) + DROP,
            [("althing", "blob_open", 3), ("althing", "blob_read", 4)], data=FILE,
        ),
        "the model gave a handle of nothing",
    ),
}
# By name: a module that nobody runs, and why.
REFUSED = {
    "forbidden-import": (
        wasm(b"", [("wasi_snapshot_preview1", "path_open", 0)]),
        "the module imports wasi_snapshot_preview1.path_open, which is not in the ABI",
    ),
    "malformed": (wasm(LOOP + AGAIN + END)[:-9], "the module is malformed"),
    "oversized": (bytes((16 << 20) + 1), "the module has 16777217 bytes, at most 16777216 are allowed"),
    "slow-compile": (wasm(b"", more=[slow()] * 3), "locals times branches, at most 64000000 are allowed"),
}
FOX = [{"role": "user", "content": "Tell me a story about a fox"}]


class Hostile(Roles):
    """Two providers that serve tiny-stories next to all that is hostile; the first one also what cannot be loaded."""

    def __init__(self, directory):
        super().__init__(directory)
        self.one, self.other = self.dir / "providers/0", self.dir / "providers/1"
        self.wallet, self.packages = self.dir / "wallets/maker.key", {}
        for name, (module, _) in (FAILING | REFUSED).items():
            self.packages[name] = with_module(directory / name, name, module)
        self.start("node", "coordinators/0", self.node + "/v1/status")
        for name in FAILING:
            self.publish(name, self.packages[name], self.one)
        maker = json.loads(althing("key", "show", self.wallet, "--json").stdout)["address"]
        for name in REFUSED:
            # The ledger cannot look into packages.
            package = json.loads(althing("content", "add", self.packages[name], "--home", self.one, "--json").stdout)["cid"]
            call = {"call": "model_register", "name": name, "package": package, "fee": "0", "payee": maker, "verification": "exact"}
            althing("call", "send", json.dumps(call), "--wallet", self.wallet, "--node", self.node)
        serve(self.one, *REFUSED, "tiny-stories", *FAILING, sources=[])
        serve(self.other, "tiny-stories", *FAILING, sources=[self.url(40)])
        self.start("provider", "providers/0", self.url(40))
        self.start("provider", "providers/1", self.url(41))
        self.start("gateway", "gateway", self.gateway + "/healthz")
        self.wait_served("tiny-stories", *FAILING)
        self.pids = {home: self.running[home].pid for home in ["providers/0", "providers/1"]}

    def publish(self, name, package, home):
        althing("model", "publish", name, package, "--home", home, "--wallet", self.wallet, "--node", self.node)

    def wait_served(self, *models):
        until("both serve", 30, lambda: all(self.supporters(model) == 2 for model in models))

    def wait_free(self):
        """Answers bind a part of the stake for some seconds: who gave many takes no more for a while."""
        def free():
            with urllib.request.urlopen(self.node + "/v1/providers") as answer:
                return all(int(provider["reserved"]) * 2 <= int(provider["bond"]) for provider in json.load(answer))

        until("most of the stake is free", 30, free)

    def ask(self, **body):
        self.wait_free()
        return ask_json(self.gateway, self.api_key(), input={}, **body)

    def check_unharmed(self, home):
        """A provider, the same process as ever, answers others as before."""
        process, account = self.running[home], self.account(home)
        assert process.pid == self.pids[home] and process.poll() is None, (self.dir / f"{home.replace('/', '-')}.log").read_text()
        self.wait_free()
        answer = self.client().chat.completions.create(model="tiny-stories", messages=FOX, extra_body={"provider": account})
        assert answer.choices[0].message.content
        assert answer.model_extra["althing"]["provider"].lower() == account.lower()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    roles = Hostile.__new__(Hostile)
    try:
        roles.__init__(tmp_path_factory.mktemp("hostile"))
        yield roles
    finally:
        roles.stop()


@pytest.mark.parametrize(("home", "name"), list(zip(["providers/0", "providers/1"] * 3, FAILING)))
def test_a_hostile_guest_fails_its_orders_with_the_reason_and_harms_nobody(hostile, home, name):
    # In the open lane both run it.
    for body in [{"model": name, "provider": hostile.account(home)}, {"model": f"{name}:open"}]:
        status, answer = hostile.ask(**body)
        assert status == 400 and answer["error"]["code"] == "model_failed", answer
        assert answer["error"]["message"] == FAILING[name][1]
    hostile.check_unharmed(home)


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_nobody_runs_is_neither_packed_nor_published(hostile, tmp_path, name):
    package, why = hostile.packages[name], REFUSED[name][1]
    store = ["--store", tmp_path / "store"]
    for args in [
        ["pack", package, *store],
        ["publish", f"{name}-again", package, *store, "--wallet", hostile.wallet, "--node", hostile.node],
    ]:
        done = althing("model", *args, check=False)
        assert done.returncode != 0 and why in done.stderr, (args, done.stderr)
    assert althing("model", "show", f"{name}-again", "--node", hostile.node, check=False).returncode != 0


def test_a_provider_leaves_out_what_cannot_be_loaded_and_serves_the_others(hostile):
    """Registered all the same: the ledger cannot look into packages."""
    log = (hostile.dir / "providers-0.log").read_text()
    status = json.loads(althing("provider", "status", "--home", hostile.one, "--json").stdout)
    left_out = {left["name"]: left["why"] for left in status["serving"]["left_out"]}
    assert sorted(left_out) == sorted(REFUSED)
    serves = next(line for line in log.splitlines() if " serves " in line)
    assert "tiny-stories" in serves
    for name, (_, why) in REFUSED.items():
        note = next(line for line in log.splitlines() if line.startswith(f"note: the model {name} cannot be loaded: "))
        assert why in note and "it is left out, and the others are served" in note, log
        assert why in left_out[name] and name not in serves
        # It takes no orders for it: nobody is told that it would.
        assert hostile.supporters(name) == 0
        code, answer = hostile.ask(model=name)
        assert code == 503 and answer["error"]["code"] == "no_provider", answer
    hostile.check_unharmed("providers/0")


def test_a_provider_whose_package_was_damaged_takes_back_what_it_announced(hostile, tmp_path):
    module = built("text-facts") / "model.wasm"
    package = with_module(tmp_path / "sound", "sound-once", module.read_bytes() + b"\0\2\1x")
    hostile.publish("sound-once", package, hostile.other)

    def stop(*models):
        process = hostile.running["providers/1"]
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        serve(hostile.other, *models, sources=[])

    def restart(*models):
        stop(*models)
        hostile.start("provider", "providers/1", hostile.url(41))
        hostile.pids["providers/1"] = hostile.running["providers/1"].pid

    restart("sound-once", "tiny-stories", *FAILING)
    until("it is announced", 30, lambda: hostile.supporters("sound-once") == 1)
    whole = (package / "model.wasm").read_bytes()
    blocks = [path for path in (hostile.other / "content/blocks").rglob("*") if path.is_file()]
    [block] = [path for path in blocks if path.read_bytes() == whole]
    block.chmod(0o600)
    block.write_bytes(whole[:-1] + b"y")
    restart("sound-once", "tiny-stories", *FAILING)
    log = (hostile.dir / "providers-1.log").read_text()
    note = next(line for line in log.splitlines() if line.startswith("note: the model sound-once cannot be loaded: "))
    assert "is not here" in note and "is nowhere to be found" in note
    until("that is taken back", 30, lambda: hostile.supporters("sound-once") == 0)
    hostile.wait_served("tiny-stories", *FAILING)
    hostile.check_unharmed("providers/1")

    # Where there is nothing else to serve it is an error.
    stop("sound-once")
    alone = althing("provider", "--home", hostile.other, check=False)
    assert alone.returncode != 0 and "the model sound-once cannot be loaded: " in alone.stderr, alone.stderr
    restart("tiny-stories", *FAILING)
