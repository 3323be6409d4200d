"""A network of processes, as operators run it: made by `althing init`, killed at random moments."""

import json, os, pathlib, random, signal, socket, subprocess, threading, time, urllib.error, urllib.request

import openai

from conftest import BINARY

COORDINATORS, PROVIDERS = 4, 3
KILLS = int(os.environ.get("ALTHING_KILLS", "50"))
SEED = int(os.environ.get("ALTHING_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
ASK = [{"role": "user", "content": "Tell me a story about a bear"}]


def free_port_base(rng):
    while True:
        base = rng.randrange(20000, 30000, 100)
        try:
            for offset in [*range(COORDINATORS), *range(20, 20 + COORDINATORS), *range(40, 40 + PROVIDERS), 60]:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue


class Processes:
    def __init__(self, directory, base):
        self.dir, self.base, self.running = directory, base, {}
        command = [BINARY, "init", directory / "net", "--coordinators", str(COORDINATORS), "--providers", str(PROVIDERS),
                   "--dev-windows", "--port-base", str(base)]
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr

    def node(self, index):
        return f"http://127.0.0.1:{self.base + 20 + index}"

    def start(self, role, home):
        log = open(self.dir / f"{home.replace('/', '-')}.log", "a")
        command = [BINARY, role, "--home", self.dir / "net" / home]
        self.running[home] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, home):
        self.running[home].send_signal(signal.SIGKILL)
        self.running.pop(home).wait()

    def stop(self):
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(30)

    def get(self, index, path):
        with urllib.request.urlopen(self.node(index) + path, timeout=10) as response:
            return json.load(response)

    def height(self, index):
        try:
            return self.get(index, "/v1/status")["height"]
        except (urllib.error.URLError, OSError):
            return None

    def wait_height(self, index, height, seconds=60):
        until = time.monotonic() + seconds
        while (self.height(index) or 0) < height:
            home = f"coordinators/{index}"
            assert self.running[home].poll() is None, f"{home} ended:\n" + self.log(home)
            assert time.monotonic() < until, f"{home} is at {self.height(index)}, not at {height}:\n" + self.log(home)
            time.sleep(0.05)

    def log(self, home):
        return (self.dir / f"{home.replace('/', '-')}.log").read_text()[-3000:]


def test_nothing_confirmed_is_lost_over_kills_at_random_moments(tmp_path):
    print(f"ALTHING_SEED={SEED}")
    rng = random.Random(SEED)
    net = Processes(tmp_path, free_port_base(rng))
    confirmed_orders, confirmed_transfers, failures = [], [], []
    done = threading.Event()
    wallet = tmp_path / "net/wallets/client.key"
    other = "0x" + "ab" * 20

    def transfer(index):
        env = os.environ | {"ALTHING_NODE": net.node(index), "ALTHING_WALLET": str(wallet)}
        command = [BINARY, "transfer", other, "0.001", "--json"]
        sent = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        if sent.returncode == 0:
            confirmed_transfers.append(json.loads(sent.stdout)["receipt"]["id"])

    def ask(client):
        begun = time.monotonic()
        try:
            answer = client.chat.completions.create(model=rng.choice(["tiny-stories", "tiny-stories:open"]), messages=ASK)
            confirmed_orders.append(answer.model_extra["althing"]["order"])
        except openai.APIError as error:
            failures.append(str(error)[:200])
            time.sleep(0.2)
        if time.monotonic() - begun > 5:
            print(f"a question took {time.monotonic() - begun:.1f} s", failures[-1:])

    def load():
        key = json.loads((tmp_path / "net/gateway/api-keys.json").read_text())[0]["api_key"]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{net.base + 60}/v1", api_key=key, max_retries=0, timeout=90)
        while not done.is_set():
            ask(client)

    def pay():
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                transfer(turn % COORDINATORS)
            except subprocess.TimeoutExpired:
                failures.append("a transfer hung")

    try:
        for index in range(COORDINATORS):
            net.start("node", f"coordinators/{index}")
        for index in range(COORDINATORS):
            net.wait_height(index, 1)
        for index in range(PROVIDERS):
            net.start("provider", f"providers/{index}")
        net.start("gateway", "gateway")
        until = time.monotonic() + 30
        while len([p for p in net.get(0, "/v1/providers") if p["models"]]) < PROVIDERS:
            assert time.monotonic() < until
            time.sleep(0.1)
        threads = [threading.Thread(target=work) for work in (load, load, pay)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(rng.uniform(0, 0.6))
            index = rng.randrange(COORDINATORS)
            net.kill(f"coordinators/{index}")
            time.sleep(rng.uniform(0, 0.4))
            net.start("node", f"coordinators/{index}")
            # The next may fall when this one is back: one of four may be down at a time.
            heights = [net.height(i) or 0 for i in range(COORDINATORS) if i != index]
            begun = time.monotonic()
            net.wait_height(index, max(heights) + 1)
            print(f"coordinator {index} was back after {time.monotonic() - begun:.1f} s at height {max(heights)}")
        # A provider falls as well, with whatever it has promised.
        net.kill("providers/0")
        net.start("provider", "providers/0")
        time.sleep(1)
        done.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "nothing hangs"
        assert confirmed_orders and confirmed_transfers, failures
        assert "a transfer hung" not in failures

        # Every order ends, whoever fell in between.
        until = time.monotonic() + 120
        while net.get(1, "/v1/orders?state=open"):
            assert time.monotonic() < until, net.get(1, "/v1/orders?state=open")
            time.sleep(0.5)
        height = max(net.height(index) for index in range(COORDINATORS))
        for index in range(COORDINATORS):
            net.wait_height(index, height)
        roots = {net.get(index, f"/v1/blocks/{height}")["state_root"] for index in range(COORDINATORS)}
        assert len(roots) == 1
        for index in range(COORDINATORS):
            for order in confirmed_orders:
                assert net.get(index, f"/v1/orders/{order}")["state"]["state"] == "claimed"
            for transaction in confirmed_transfers:
                assert net.get(index, f"/v1/transactions/{transaction}")["receipt"].get("error") is None
            supply = net.get(index, "/v1/supply")
            assert int(supply.pop("issued")) == sum(map(int, supply.values()))
        paid = int(net.get(0, f"/v1/accounts/{other}")["free"])
        assert paid >= len(confirmed_transfers) * 10**15
        print(f"{KILLS} kills, {len(confirmed_orders)} orders and {len(confirmed_transfers)} transfers confirmed, "
              f"{len(failures)} requests failed meanwhile: {sorted(set(failures))[:5]}")
    finally:
        done.set()
        net.stop()
