"""Models on servers that people have already: Cog and llama.cpp, both from PyPI, behind the real binary."""

import base64, http.server, io, json, os, pathlib, signal, socket, ssl, subprocess, sys, threading, time, tomllib
import urllib.error, urllib.request, wave

import openai, pytest

from conftest import ROOT, Network, until
from test_packages import Roles, althing, built, serve

HERE = pathlib.Path(__file__).parent
SECRET = "sk-e2e-very-secret"
LLAMA = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.api_keys = sys.argv[1], int(sys.argv[2]), [sys.argv[3]]
params.hostnames, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = ["127.0.0.1"], 256, 2, 1
server = xllamacpp.Server(params)
while True:
    time.sleep(1)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves on loopback."""

    def __init__(self, name, directory, command, health, env={}, port=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(directory / f"{name}.log", "a")
        self.process = subprocess.Popen(
            [str(part) for part in command(self.port)], cwd=directory, stdout=self.log, stderr=self.log,
            env=os.environ | {"PORT": str(self.port)} | env,
        )
        end = time.monotonic() + 60
        while not self.answers(health):
            assert self.process.poll() is None and time.monotonic() < end, pathlib.Path(self.log.name).read_text()
            time.sleep(0.1)

    def answers(self, health):
        try:
            with urllib.request.urlopen(self.url + health, timeout=5) as answer:
                return b"STARTING" not in answer.read()
        except OSError:
            return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def llama(directory, port=None):
    command = lambda port: [sys.executable, "-c", LLAMA, ROOT / "crates/exact/tests/fixtures/llama.gguf", port, SECRET]
    return Server("llama", directory, command, "/health", port=port)


def cog(directory, model, inputs, output, streams=False):
    """A Cog server as a container has it: the schema is what `cog build` writes into it."""
    home = directory / f"cog-{model}"
    (home / ".cog").mkdir(parents=True)
    (home / "run.py").write_text((HERE / f"cog/{model}.py").read_text())
    (home / "cog.yaml").write_text('run: "run.py:Runner"\nbuild:\n  python_version: "3.11"\n')
    post = {"x-cog-streaming": True} if streams else {}
    (home / ".cog/openapi_schema.json").write_text(json.dumps({
        "openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"},
        "components": {"schemas": {
            "Input": {"type": "object", "required": [next(iter(inputs))], "properties": inputs}, "Output": output,
        }},
        "paths": {"/predictions": {"post": post}, "/predictions/{prediction_id}/cancel": {"post": {}}},
    }))
    # The server starts its worker as whatever `python` is first in the path.
    env = {"COG_PREDICT_TYPE_STUB": "run.py:Runner", "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    # Its log says whom it called back.
    env["COG_LOG_LEVEL"] = "debug"
    command = lambda port: [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    return Server(f"cog-{model}", home, command, "/health-check", env)


def cog_chat(directory):
    text, whole = {"type": "string"}, {"type": "integer"}
    inputs = {"prompt": text, "max_tokens": whole, "pause": {"type": "number"}, "seed": whole}
    output = {"type": "array", "items": text, "x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}
    return cog(directory, "chat", inputs, output, streams=True)


FILE = {"type": "string", "format": "uri"}


def cog_image(directory):
    size = {"type": "integer", "maximum": 1024}
    return cog(directory, "image", {"prompt": {"type": "string"}, "width": size, "height": size}, FILE)


def cog_speech(directory):
    return cog(directory, "speech", {"text": {"type": "string"}, "voice": {"type": "string"}}, FILE)


class Adapted:
    """A network of processes whose first provider has three servers elsewhere."""

    def __init__(self, directory):
        self.dir = directory
        self.servers = {"llama": llama(directory), "chat": cog_chat(directory), "image": cog_image(directory)}
        roles = self.roles = Roles(directory)
        self.home = roles.dir / "providers/0"
        roles.start("node", "coordinators/0", roles.node + "/v1/status")
        (self.home / "llama.key").write_text(SECRET + "\n")
        upstreams = ""
        # One server may be behind several models: here once more, as a model of JSON.
        for name, server in [*self.servers.items(), ("raw", self.servers["chat"])]:
            package = directory / f"package-{name}"
            path = "/v1" if name == "llama" else ""
            adapted = json.loads(althing(
                "model", "adapt", server.url + path, "-o", package, "--name", name,
                "--upstream-key-env", "LLAMA_KEY", "--json", *(["--interface", "json"] if name == "raw" else []),
                LLAMA_KEY=SECRET,
            ).stdout)
            assert adapted["manifest"]["verification"] == "none"
            assert adapted["manifest"]["interface"] == {"image": "image", "raw": "json"}.get(name, "chat")
            althing(
                "model", "publish", name, package, "--home", self.home,
                "--wallet", roles.dir / "wallets/maker.key", "--node", roles.node,
            )
            upstreams += f'\n[upstreams.{name}]\nurl = "{server.url + path}"\n'
        upstreams = upstreams.replace(
            "[upstreams.llama]\n", '[upstreams.llama]\nkey_file = "llama.key"\n'
        ).replace("[upstreams.chat]\n", "[upstreams.chat]\nrun_ms_max = 4000\n").replace(
            "[upstreams.image]\n", '[upstreams.image]\nwebhook = "127.0.0.1:0"\n')
        settings = self.home / "provider.toml"
        settings.write_text(settings.read_text() + upstreams)
        assert tomllib.loads(settings.read_text())["upstreams"]["llama"]["key_file"] == "llama.key"
        # All that can be logged is.
        os.environ["ALTHING_LOG"] = "trace"
        try:
            roles.start("provider", "providers/0", roles.url(40))
        finally:
            del os.environ["ALTHING_LOG"]
        settings = roles.dir / "gateway/gateway.toml"
        settings.write_text(settings.read_text().replace("answer_within_ms = 60000", "answer_within_ms = 20000"))
        roles.start("gateway", "gateway", roles.gateway + "/healthz")
        keys = json.loads((roles.dir / "gateway/api-keys.json").read_text())
        self.key = (keys["keys"] if isinstance(keys, dict) else keys)[0]["api_key"]
        self.client = openai.OpenAI(base_url=roles.gateway + "/v1", api_key=self.key, max_retries=0, timeout=60)
        until("the models are served", 30, lambda: all(
            json.loads(althing("model", "show", name, "--node", roles.node).stdout)["supporters"] == 1
            for name in [*self.servers, "raw"]
        ))

    def post(self, path, body):
        """A plain request; status, headers and bytes."""
        request = urllib.request.Request(
            self.roles.gateway + path, json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def receipt(self, headers):
        """The receipt that an answer names, checked."""
        receipt = urllib.request.urlopen(self.roles.gateway + headers["x-althing-receipt"]).read()
        path = self.dir / "receipt.json"
        path.write_bytes(receipt)
        althing("verify", "--network-key", self.roles.dir / "network-key", path)
        return json.loads(receipt)

    def stop(self):
        self.roles.stop()
        for server in self.servers.values():
            server.stop()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    adapted = Adapted(tmp_path_factory.mktemp("adapted"))
    yield adapted
    adapted.stop()


QUESTION = [{"role": "user", "content": "Hello there!"}]
# The fixture's weights are random, so its answers are often bytes that are no text yet, and llama.cpp leaves such tokens out
# of `logprobs` and of streams. Its own parameters, which go through as they are, keep it to letters and from ending.
LETTERS = {"grammar": "root ::= [a-z ]+", "ignore_eos": True}


def test_an_openai_server_answers_the_official_client(adapted):
    client = adapted.client
    whole = client.chat.completions.create(
        model="llama", messages=QUESTION, max_tokens=5, logprobs=True, top_logprobs=2, extra_body=LETTERS,
    )
    # What no engine of ours has comes through as it is.
    assert len(whole.choices[0].logprobs.content) == 5 and whole.usage.completion_tokens == 5
    assert whole.model_extra["timings"]["predicted_n"] == 5 and "althing" not in whole.model_extra
    chunks = list(client.chat.completions.create(
        model="llama", messages=QUESTION, max_tokens=5, stream=True, stream_options={"include_usage": True},
        extra_body=LETTERS, seed=1,
    ))
    assert len(chunks) > 3 and any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 5
    tools = [{"type": "function", "function": {"name": "x", "parameters": {"type": "object", "properties": {}}}}]
    assert client.chat.completions.create(model="llama", messages=QUESTION, max_tokens=2, tools=tools).choices
    # Others are not asked to check it, and the listing says so.
    listed = {model.id: model.model_extra["althing"] for model in client.models.list()}
    assert listed["llama"]["verification"] == "none" and listed["llama"]["interface"] == "chat"
    assert "llama:open" not in listed
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="llama:open", messages=QUESTION)
    assert refused.value.code == "not_verifiable"


def test_streams_pass_byte_for_byte_and_receipts_have_them(adapted):
    body = {"model": "llama", "messages": QUESTION, "max_tokens": 6, "stream": True, "seed": 7}
    status, headers, stream = adapted.post("/v1/chat/completions", body)
    assert status == 200 and headers["content-type"] == "text/event-stream"
    assert stream.startswith(b'data: {"choices":[{') and stream.endswith(b"\n\ndata: [DONE]\n\n")
    receipt = adapted.receipt(headers)
    assert bytes.fromhex(receipt["output"]) == stream
    assert json.loads(bytes.fromhex(receipt["input"])) == {key: body[key] for key in body if key != "model"}
    # An answer as a whole too.
    status, headers, answer = adapted.post("/v1/chat/completions", body | {"stream": None})
    assert headers["x-althing-model-verification"] == "none" and headers["content-type"] == "application/json"
    assert bytes.fromhex(adapted.receipt(headers)["output"]) == answer


def test_what_a_server_refuses_costs_nothing_and_says_why(adapted):
    long = [{"role": "user", "content": "word " * 500}]
    for stream in [False, True]:
        with pytest.raises(openai.BadRequestError) as refused:
            adapted.client.chat.completions.create(model="llama", messages=long, stream=stream)
        assert "context" in str(refused.value)
    with pytest.raises(openai.BadRequestError) as refused:
        adapted.client.chat.completions.create(model="llama", messages=QUESTION, n=2)
    assert "one order is one answer" in str(refused.value)
    with pytest.raises(openai.BadRequestError) as refused:
        adapted.client.embeddings.create(model="llama", input="x")
    assert refused.value.code == "wrong_interface"
    open_orders = lambda: json.loads(althing("order", "list", "--open", "--node", adapted.roles.node, "--json").stdout)
    until("orders without an answer are refunded", 90, lambda: not [
        order for order in open_orders() if order["state"]["state"] in ("submitted", "accepted")
    ])
    orders = json.loads(althing("order", "list", "--node", adapted.roles.node, "--json").stdout)
    assert any(order["state"]["state"] == "refunded" for order in orders)


def test_a_server_that_goes_away_is_noticed_and_used_again_when_it_is_back(adapted):
    ask = lambda: adapted.client.chat.completions.create(model="llama", messages=QUESTION, max_tokens=2)
    server = adapted.servers["llama"]
    server.stop()
    with pytest.raises(openai.InternalServerError) as away:
        ask()
    assert away.value.status_code == 503 and away.value.code == "model_unavailable"
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        ask()
    assert time.monotonic() - began < 5, "nobody waits for a server that is known to be away"
    status = json.loads(althing("provider", "status", "--url", adapted.roles.url(40), "--json").stdout)
    trouble = [server["trouble"] for _, server in status["elsewhere"]]
    assert any("Connection refused" in (why or "") for why in trouble) and None in trouble
    assert server.url not in json.dumps(status), "where the servers are is the provider's own affair"
    adapted.servers["llama"] = llama(adapted.dir, server.port)

    def is_back():
        try:
            return ask().choices
        except openai.InternalServerError:
            return None

    until("the server is used again", 20, is_back)


def test_clients_choose_whom_they_trust_and_receipts_are_theirs(adapted):
    ask = lambda provider: adapted.client.chat.completions.with_raw_response.create(
        model="llama", messages=QUESTION, max_tokens=2, extra_body={"provider": provider},
    )
    account = tomllib.loads((adapted.home / "provider.toml").read_text())["account"]
    answer = ask(account)
    assert answer.headers["x-althing-provider"].lower() == account.lower()
    with pytest.raises(openai.InternalServerError) as nobody:
        ask("0x" + "11" * 20)
    assert nobody.value.code == "no_provider"
    # Orders are public, what client and provider said to each other is not.
    path = answer.headers["x-althing-receipt"]
    assert urllib.request.urlopen(adapted.roles.gateway + path).status == 200
    for other in [path.split("?")[0], path.split("?")[0] + "?token=" + "00" * 32]:
        with pytest.raises(urllib.error.HTTPError) as hidden:
            urllib.request.urlopen(adapted.roles.gateway + other)
        assert hidden.value.code == 404


def test_servers_are_not_made_to_fetch_what_strangers_name(adapted):
    picture = {"type": "image_url", "image_url": {"url": adapted.servers["image"].url}}
    with pytest.raises(openai.BadRequestError) as refused:
        adapted.client.chat.completions.create(model="llama", messages=[{"role": "user", "content": [picture]}])
    assert "`data:` URLs" in str(refused.value)


def test_a_model_that_nobody_can_check_is_not_served_as_if_they_could(adapted):
    """T-20: the ledger cannot look into packages."""
    roles, other = adapted.roles, adapted.roles.dir / "providers/1"
    package = json.loads(althing("model", "show", "llama", "--node", roles.node).stdout)["package"]
    wallet = roles.dir / "wallets/client.key"
    account = json.loads(althing("key", "show", wallet, "--json").stdout)["address"]
    call = {"call": "model_register", "name": "pretender", "package": package, "fee": "0", "payee": account, "verification": "exact"}
    althing("call", "send", json.dumps(call), "--wallet", wallet, "--node", roles.node)
    serve(other, "pretender", sources=[roles.url(40)])
    done = althing("provider", "--home", other, "--upstream", adapted.servers["llama"].url, check=False)
    assert done.returncode != 0 and "registered as if others could re-run it" in done.stderr, done.stderr


def test_a_cog_model_streams_to_the_official_client(adapted):
    came, text = [], ""
    for chunk in adapted.client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "the law is the law"}], stream=True,
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            came.append(time.monotonic())
            text += chunk.choices[0].delta.content
    assert text.startswith("the law is the law (seed ") and len(came) == 6
    assert came[-1] - came[0] > 0.15, "piece by piece, as the model makes them"
    whole = adapted.client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=1)
    assert whole.choices[0].message.content == "Hello " and whole.model_extra["althing"]["model_verification"] == "none"
    with pytest.raises(openai.BadRequestError) as refused:
        adapted.client.chat.completions.create(model="chat", messages=QUESTION, temperature=0.5)
    assert "does not take `temperature`" in str(refused.value)


def test_a_cog_model_takes_and_gives_json(adapted):
    status, _, answer = adapted.post("/v1/json", {"model": "raw", "input": {"prompt": "a b", "seed": 3}})
    assert status == 200 and json.loads(answer)["output"] == ["a ", "b ", "(seed 3)"], answer
    status, _, answer = adapted.post("/v1/json", {"model": "raw", "input": {"prompt": 5}})
    error = json.loads(answer)["error"]
    assert status == 400 and error["code"] == "invalid_input" and "prompt" in error["message"], answer


def test_a_cog_model_that_fails_or_takes_too_long_is_stopped_and_the_next_one_answered(adapted):
    ask = lambda text: adapted.client.chat.completions.create(model="chat", messages=[{"role": "user", "content": text}])
    for text, reason in [("explode", "it exploded"), ("sleep a b", "longer than 4 s")]:
        with pytest.raises(openai.InternalServerError) as failed:
            ask(text)
        assert failed.value.code == "delivery_failed" and reason in str(failed.value)
    # The one that slept was cancelled: its server has one place only.
    assert ask("free again").choices[0].message.content.startswith("free again ")


def test_a_busy_cog_server_is_asked_in_turn(adapted):
    server = adapted.servers["chat"]
    said, threads, others, ends = [], [], [], {}

    def direct(prompt, pause):
        """What somebody else gets who uses the server too."""
        body = json.dumps({"input": {"prompt": prompt, "pause": pause}}).encode()
        request = urllib.request.Request(server.url + "/predictions", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def is_busy():
        return json.loads(urllib.request.urlopen(server.url + "/health-check").read())["status"] == "BUSY"

    def running():
        """How many runs the provider has begun at that server and not ended."""
        status = json.loads(althing("provider", "status", "--url", adapted.roles.url(40), "--json").stdout)
        return sum(server["running"] for _, server in status["elsewhere"])

    def hold():
        others.append(direct("a b c d", 0.5))
        ends["other"] = time.monotonic()

    def ask(word):
        answer = adapted.client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": word}], max_tokens=1,
        )
        ends[word] = time.monotonic()
        said.append(answer.choices[0].message.content)

    threads.append(threading.Thread(target=hold))
    threads[0].start()
    until("the server is held", 10, is_busy)
    for word in ["one", "two", "three"]:
        threads.append(threading.Thread(target=ask, args=[word]))
        threads[-1].start()
    # The provider asks while the server has its only place taken: what it gets is what anybody gets.
    until("the provider asks too", 10, running)
    status, refused = direct("x", 0)
    is_held = "other" not in ends
    for thread in threads:
        thread.join(60)
    assert is_held and status == 409 and "capacity" in refused["error"], (is_held, status, refused)
    assert others[0][0] == 200 and len(others[0][1]["output"]) == 5, others
    assert sorted(said) == ["one ", "three ", "two "]
    assert all(ends["other"] < ends[word] for word in ["one", "two", "three"]), "nobody before the server was free"


def test_a_cog_model_paints_and_calls_back(adapted):
    server = adapted.servers["image"]

    def logged(message):
        """The server's own words on what it did."""
        lines = (json.loads(line) for line in pathlib.Path(server.log.name).read_text().splitlines() if line[:1] == "{")
        return [line["fields"] for line in lines if line["fields"].get("message") == message]

    called, begun = "Terminal webhook sent successfully", "Starting prediction"
    called_before, begun_before = len(logged(called)), len(logged(begun))
    image = adapted.client.images.generate(model="image", prompt="something red", size="96x64", n=2)
    for data in image.data:
        file = base64.b64decode(data.b64_json)
        assert file.startswith(b"\x89PNG") and file[16:24] == bytes([0, 0, 0, 96, 0, 0, 0, 64])
    as_url = adapted.client.images.generate(model="image", prompt="blue", size="32x32", response_format="url")
    assert as_url.data[0].url.startswith("data:image/png;base64,"), "between client and provider alone"
    with pytest.raises(openai.BadRequestError) as refused:
        adapted.client.images.generate(model="image", prompt="x", size="2048x2048")
    assert "1024" in str(refused.value)
    # Three pictures, and the server told of each where `webhook` says; somebody was there who took it.
    until("the server has noted its calls", 10, lambda: len(logged(called)) == called_before + 3)
    assert len(logged(begun)) == begun_before + 3 and {call["status"] for call in logged(called)} == {"200"}
    # Of a model without that setting nobody is called.
    assert called not in pathlib.Path(adapted.servers["chat"].log.name).read_text()


def test_keys_are_in_no_log_and_no_package(adapted):
    for path in adapted.roles.dir.rglob("*.log"):
        assert SECRET not in path.read_text(errors="replace"), path
    log = (adapted.roles.dir / "providers-0.log").read_text(errors="replace")
    assert "reqwest" in log or "hyper" in log, "the log has every detail"
    for package in adapted.dir.glob("package-*"):
        text = (package / "model.toml").read_text()
        assert SECRET not in text and "127.0.0.1" not in text
    request = urllib.request.Request(
        adapted.roles.gateway + "/v1/models", headers={"Authorization": f"Bearer {adapted.key}"},
    )
    listing = urllib.request.urlopen(request).read().decode()
    assert not any(server.url in listing for server in adapted.servers.values())


def test_one_command_serves_a_cog_model_in_a_network(tmp_path):
    server = cog_speech(tmp_path)
    try:
        network = Network(tmp_path, "--upstream", server.url, "--providers", "2")
        try:
            client = network.client()
            listed = {model.id: model.model_extra["althing"] for model in client.models.list()}
            assert listed["cog-model"]["interface"] == "speech" and "tiny-stories:open" in listed
            spoken = client.audio.speech.create(model="cog-model", voice="high", input="hello")
            assert spoken.response.headers["content-type"] == "audio/wav"
            with wave.open(io.BytesIO(spoken.read())) as sound:
                assert sound.getnframes() == 4000
            with pytest.raises(openai.BadRequestError) as refused:
                client.audio.speech.create(model="cog-model", voice="low", input="x", response_format="mp3")
            assert "does not take `format`" in str(refused.value)
        finally:
            network.stop()
    finally:
        server.stop()


def test_a_guest_paints_the_same_picture_for_everybody(tmp_path):
    landscapes = built("landscapes")
    network = Network(tmp_path, "--model", landscapes)
    try:
        client = network.client()
        raced = client.images.generate(model="landscapes:open", prompt="northern lights over a snowy fjord", size="256x256")
        file = base64.b64decode(raced.data[0].b64_json)
        provenance = raced.data[0].model_extra["althing"]
        assert provenance["verification"] == "agreed" and provenance["agreed_by"]
        # The picture lies under its own name, for everybody.
        assert urllib.request.urlopen(f"{network.gateway}/ipfs/{provenance['output_cid']}").read() == file
        # Whoever has the model can paint it again, without a network.
        asked = json.dumps({"prompt": "northern lights over a snowy fjord", "width": 256, "height": 256})
        network.althing("model", "run", landscapes, "--input", asked, "--seed", provenance["seed"], "-o", tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == file
        pair = client.images.generate(
            model="landscapes", prompt="hills", size="64x64", n=2, response_format="url", extra_body={"seed": 5},
        )
        assert len({data.url for data in pair.data}) == 2
        public = client.images.generate(model="landscapes:open", prompt="hills", size="64x64", response_format="url")
        assert urllib.request.urlopen(public.data[0].url).read().startswith(b"\x89PNG")
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(model="landscapes", prompt="x", size="65x64")
        assert "multiples of 8" in str(refused.value) or "multiple of 8" in str(refused.value)
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(model="tiny-stories", prompt="x")
        assert refused.value.code == "wrong_interface" and "/v1/chat/completions" in str(refused.value)
    finally:
        network.stop()


def test_a_server_elsewhere_is_reached_over_tls_and_its_certificate_checked(tmp_path):
    class Models(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"data": [{"id": "theirs"}]}).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Models)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "tls/server.pem", HERE / "tls/server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    adapt = lambda name, **env: althing(
        "model", "adapt", f"https://localhost:{server.server_port}/v1", "-o", tmp_path / name, check=False, **env,
    )
    try:
        unknown = adapt("unknown")
        assert unknown.returncode != 0 and "certificate" in unknown.stderr, unknown.stderr
        known = adapt("known", SSL_CERT_FILE=str(HERE / "tls/ca.pem"))
        assert known.returncode == 0 and "theirs" in known.stderr, known.stderr
    finally:
        server.shutdown()


def test_wrong_servers_are_refused_with_what_to_do(tmp_path):
    for args, expected in [
        (["model", "adapt", "http://127.0.0.1:9/v1", "-o", tmp_path / "a"], "neither a Cog server"),
        (["model", "adapt", "localhost", "-o", tmp_path / "a"], "http or https address"),
        (["model", "adapt", "http://me:pw@127.0.0.1:9", "-o", tmp_path / "a"], "no user or password"),
        (["dev", "--exit", "--ask", "x", "--upstream", "http://127.0.0.1:9"], "neither a Cog server"),
        (["provider", "--home", tmp_path, "--upstream", "my-model"], "MODEL=URL"),
    ]:
        done = althing(*args, check=False)
        assert done.returncode != 0 and expected in done.stderr, (args, done.stderr)
        assert "pw@" not in done.stderr
    package = tmp_path / "wrong"
    package.mkdir()
    text = 'name = "x"\ndescription = ""\ninterface = "chat"\nruntime = "openai/1"\nverification = "exact"\nlicence = ""\n'
    text += "[limits]\noutput_bytes_max = 1000\n"
    for change, more, expected in [
        (("", ""), "", 'say verification = "none"'),
        (('"exact"', '"none"'), '[files]\ngguf = "x"\n', "names other files"),
        (('"chat"', '"telepathy"'), "", '"telepathy"'),
    ]:
        (package / "model.toml").write_text(text.replace(*change) + more)
        done = althing("model", "pack", package, "--store", tmp_path / "store", check=False)
        assert done.returncode != 0 and expected in done.stderr, done.stderr
