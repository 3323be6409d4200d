"""Starts the real binary for the tests: whole networks on loopback, in temporary directories."""

import json, os, pathlib, shutil, signal, subprocess, time, urllib.request

import openai, pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("ALTHING_BIN", ROOT / "target/release/althing"))


def need(programs, packages, whose):
    """Sees to it that programs are there, as root by Debian's packages."""
    if all(map(shutil.which, programs)):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        pytest.fail(f"{whose}: install Debian's {' and '.join(packages)}, or others")
    subprocess.run(["sh", "-ec", '. tests/packages.sh; need "$@"', "sh", *packages], cwd=ROOT, check=True)


class Network:
    """`althing dev`, running."""

    def __init__(self, directory, *args):
        ready = directory / "ready.json"
        self.log = open(directory / "dev.log", "w+")
        self.process = subprocess.Popen(
            [BINARY, "dev", "--data", directory / "data", "--ready-json", ready,
             "--listen", "127.0.0.1:0", "--listen-node", "127.0.0.1:0", *args],
            stdout=self.log, stderr=self.log,
        )
        until = time.monotonic() + 90
        while not ready.exists():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < until, "not ready:\n" + self.output()
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        self.gateway, self.node = self.ready["gateway"], self.ready["nodes"][0]

    def output(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def client(self, **options):
        options = {"api_key": self.ready["api_key"], "max_retries": 0, "timeout": 120} | options
        return openai.OpenAI(base_url=self.gateway + "/v1", **options)

    def althing(self, *args, check=True):
        """Runs another command of the binary; gives what it printed."""
        env = os.environ | {"ALTHING_NODE": self.node, "ALTHING_WALLET": self.ready["wallet"]}
        done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, env=env, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def json(self, *args):
        return json.loads(self.althing(*args, "--json").stdout)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("dev"))
    yield network
    network.stop()


def get(network, path):
    with urllib.request.urlopen(network.node + path) as answer:
        return json.load(answer)


def until(what, limit_s, condition):
    """Waits for something that the ledger does by itself."""
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.3)
    return found


def send(network, wallet, call, **fields):
    """Signs any call; gives its receipt."""
    return network.json("call", "send", json.dumps({"call": call, **fields}), "--wallet", wallet)["receipt"]


def enact(network, wallet, calls):
    """Has governance make calls: proposed, voted for, queued and executed. (G-1)"""
    send(network, wallet, "proposal_create", title="A change", description="It is useful.", calls=calls)
    number = max(int(proposal["id"]) for proposal in get(network, "/v1/proposals"))
    path = f"/v1/proposals/{number}"
    state = lambda: get(network, path)["state"]
    until("the vote begins", 20, lambda: state() == "active")
    send(network, wallet, "proposal_vote", proposal=number, choice="for")
    until("the vote ends", 40, lambda: state() == "succeeded")
    send(network, wallet, "proposal_queue", proposal=number)
    executable = int(get(network, path)["executable_ms"])
    until("the timelock ends", 20, lambda: get(network, "/v1/status")["time_ms"] >= executable)
    send(network, wallet, "proposal_execute", proposal=number)
