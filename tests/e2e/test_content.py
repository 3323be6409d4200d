"""Content: IPFS clients from npm against a provider, peers that fetch from each other, and the command line."""

import filecmp, http.server, json, os, pathlib, random, shutil, subprocess, threading, urllib.error, urllib.request

import pytest

from conftest import BINARY, ROOT, need, until

CLIENTS = ROOT / "tests/ipfs"
INSTALLED = ROOT / "target/ipfs"
NODE_VERSION_MIN = 20


def need_node():
    need(["node", "npm"], ["nodejs", "npm"], f"tests/ipfs needs node {NODE_VERSION_MIN} or later and npm")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_VERSION_MIN:
        pytest.fail(f"tests/ipfs needs node {NODE_VERSION_MIN} or later, this is {version}")


@pytest.fixture(scope="session")
def clients():
    """The packages of tests/ipfs, as its lock file says, below target/."""
    need_node()
    files = ["package.json", "package-lock.json", ".npmrc"]
    INSTALLED.mkdir(parents=True, exist_ok=True)
    done = INSTALLED / "installed.json"
    if not done.exists() or done.read_bytes() != (CLIENTS / "package-lock.json").read_bytes():
        for name in files:
            shutil.copy(CLIENTS / name, INSTALLED)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        subprocess.run(install, cwd=INSTALLED, check=True, timeout=600)
        shutil.copy(CLIENTS / "package-lock.json", done)
    shutil.copy(CLIENTS / "fetch.mjs", INSTALLED)
    return INSTALLED


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Files of none, one and several chunks under both profiles, names of all sorts, the same bytes twice."""
    tree = tmp_path_factory.mktemp("content") / "tree"
    (tree / "dir/inner").mkdir(parents=True)
    large = random.Random(7).randbytes(3_500_000)
    for name, data in {
        "empty": b"", "hello.txt": b"hello world\n", "dir/large.bin": large, "dir/again \u2603.bin": large,
        "dir/inner/one chunk": random.Random(8).randbytes(1 << 20), "zeros": bytes(1_500_000),
    }.items():
        (tree / name).write_bytes(data)
    return tree


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """A directory that is too large for one block."""
    many = tmp_path_factory.mktemp("content") / "many"
    many.mkdir()
    for index in range(6000):
        (many / f"entry-{index:06}").write_text(str(index))
    return many


def same_tree(left, right):
    comparison = filecmp.dircmp(left, right)
    names = comparison.common_files
    _, differing, errors = filecmp.cmpfiles(left, right, names, shallow=False)
    assert not (comparison.left_only or comparison.right_only or comparison.funny_files or differing or errors)
    for name in comparison.common_dirs:
        same_tree(left / name, right / name)


def provider(network, index):
    return network.ready["providers"][index]["endpoint"], pathlib.Path(network.ready["data"]) / f"providers/{index}"


def test_ipfs_clients_fetch_from_a_provider_and_verify_every_block(network, clients, tree, many):
    url, home = provider(network, 0)
    for profile in ["unixfs-v1-2025", "unixfs-v0-2015"]:
        for directory in [tree, many]:
            network.althing("content", "add", directory, "--profile", profile, "--home", home)
    command = ["node", "--no-warnings", "fetch.mjs", url, str(tree), str(many)]
    done = subprocess.run(command, cwd=clients, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = json.loads(done.stdout)["compared"]
    files = sum(path.is_file() for path in tree.rglob("*"))
    assert len([name for name in compared if name.endswith(" by path")]) == 2 * files
    assert "a file from a liar and an honest gateway" in compared
    assert len([name for name in compared if "directory of 6000 entries in " in name]) == 2


def test_a_directory_in_shards_is_listed_and_read_from_peers(network, many, tmp_path):
    url, home = provider(network, 2)
    cid = network.json("content", "add", many, "--home", home)["cid"]
    store = ["--store", tmp_path / "store"]
    read = network.althing("content", "get", f"{cid}/entry-004321", "--from", url, *store)
    assert read.stdout == "4321"
    few = network.json("content", "usage", *store)["blocks"]
    assert few < 6, "a file comes with the shards on the way to it"
    listed = network.json("content", "list", cid, "--from", url, *store)["entries"]
    assert [entry["name"] for entry in listed] == sorted(path.name for path in many.iterdir())
    assert few < network.json("content", "usage", *store)["blocks"] < 3000, "a list takes no files"
    target = tmp_path / "target"
    network.althing("content", "get", cid, "-o", target, "--from", url, *store)
    same_tree(many, target)


def test_a_package_whose_pull_was_killed_is_taken_up_again(network, tmp_path):
    url, home = provider(network, 3)
    package = tmp_path / "package"
    shutil.copytree(ROOT / "target/guests/packages/text-facts", package)
    (package / "more.bin").write_bytes(random.Random(9).randbytes(12 << 20))
    cid = network.json("content", "add", package, "--home", home)["cid"]

    class Slow(http.server.BaseHTTPRequestHandler):
        """Passes everything on from a peer, a MiB at a time, and after five of them nothing."""

        def do_GET(self):
            request = urllib.request.Request(url + self.path, headers={"Accept": self.headers["Accept"]})
            with urllib.request.urlopen(request) as answer:
                self.send_response(200)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.end_headers()
                for _ in range(5):
                    self.wfile.write(answer.read(1 << 20))
                    self.wfile.flush()
                self.server.is_over.wait(60)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.is_over = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = ["--store", tmp_path / "store"]
    blocks = lambda: network.json("content", "usage", *store)["blocks"]
    try:
        slow = f"http://127.0.0.1:{server.server_port}"
        pull = subprocess.Popen(
            [BINARY, "model", "pull", cid, "--from", slow, *store], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until("four blocks are here", 30, lambda: blocks() >= 4)
        pull.kill()
        pull.wait(10)
    finally:
        server.is_over.set()
        server.shutdown()
    here = blocks()
    pulled = network.json("model", "pull", cid, "--from", url, *store)
    assert pulled["files"] == 3 and pulled["fetched_blocks"] == blocks() - here, "nothing that is here is fetched again"


def test_content_travels_from_peer_to_peer_and_liars_are_left(network, tree, tmp_path):
    url, home = provider(network, 1)
    cid = network.json("content", "add", tree, "--home", home)["cid"]

    class Liar(http.server.BaseHTTPRequestHandler):
        """Passes everything on from an honest peer, one bit of it wrong."""

        def do_GET(self):
            request = urllib.request.Request(url + self.path, headers={"Accept": self.headers["Accept"]})
            with urllib.request.urlopen(request) as answer:
                body, content_type = bytearray(answer.read()), answer.headers["Content-Type"]
            body[len(body) // 2] ^= 1
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lying = f"http://127.0.0.1:{server.server_port}"
    try:
        store = tmp_path / "store"
        out = tmp_path / "refused"
        refused = network.althing("content", "get", cid, "-o", out, "--store", store, "--from", lying, check=False)
        assert refused.returncode != 0 and "another hash" in refused.stderr and not out.exists()

        # What the liar gave before its lie was good, and is not fetched again.
        out = tmp_path / "out"
        sources = ["--from", lying, "--from", url]
        got = network.json("content", "get", cid, "-o", out, "--store", store, *sources)
        assert 0 < got["fetched_blocks"] < got["blocks"]
        same_tree(tree, out)
        again = network.json("content", "get", cid, "-o", tmp_path / "again", "--store", store)
        assert again["fetched_blocks"] == 0
    finally:
        server.shutdown()

    # A file by its path, to stdout; a provider that has nothing says so.
    fresh = ["--store", tmp_path / "fresh"]
    text = network.althing("content", "get", f"{cid}/hello.txt", *fresh, "--from", url).stdout
    assert text == "hello world\n"
    other, _ = provider(network, 2)
    missing = network.althing("content", "get", cid, *fresh, "-o", tmp_path / "none", "--from", other, check=False)
    assert missing.returncode != 0 and "is nowhere to be found" in missing.stderr and other in missing.stderr


def test_who_has_seen_enough_gets_no_error(network, tree, tmp_path):
    """As in `althing content list CID | head`."""
    store = tmp_path / "store"
    cid = network.json("content", "add", tree / "dir", "--store", store)["cid"]
    for command in [["list", cid], ["list", cid, "--json"], ["get", f"{cid}/large.bin"], ["export", cid, "-o", "-"]]:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [BINARY, "content", *command, "--store", store], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_archives_pins_and_collection_from_the_command_line(network, tree, tmp_path):
    store = ["--store", tmp_path / "store"]
    cid = network.althing("content", "add", tree, "--name", "the tree", *store).stdout.strip()
    names = [entry["name"] for entry in network.json("content", "list", cid, *store)["entries"]]
    assert names == sorted(path.name for path in tree.iterdir())
    archive = tmp_path / "tree.car"
    exported = network.json("content", "export", cid, "-o", archive, *store)
    assert exported["blocks"] == network.json("content", "usage", *store)["pinned_blocks"]

    second = ["--store", tmp_path / "second"]
    imported = network.json("content", "import", archive, *second)
    assert imported["roots"] == [cid] and imported["pins"] == [cid]
    network.althing("content", "get", cid, "-o", tmp_path / "out", *second)
    same_tree(tree, tmp_path / "out")

    # A damaged archive is refused where it is damaged, and half a tree is not pinned.
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.car").write_bytes(damaged)
    refused = network.althing("content", "import", tmp_path / "damaged.car", "--store", tmp_path / "third", check=False)
    assert refused.returncode != 0 and "has another hash" in refused.stderr and refused.stdout == ""
    refused = network.althing("content", "pin", cid, "--store", tmp_path / "third", check=False)
    assert refused.returncode != 0 and "--from URL" in refused.stderr

    assert network.json("content", "gc", "--grace", "0", *store)["blocks"] == 0
    assert network.json("content", "pins", *store) == {"the tree": cid}
    network.althing("content", "unpin", "the tree", *store)
    assert network.althing("content", "unpin", "the tree", *store, check=False).returncode != 0
    assert network.json("content", "gc", *store)["blocks"] == 0, "what is young stays for a day"
    assert network.json("content", "gc", "--grace", "0", *store)["blocks"] == exported["blocks"]
    assert network.json("content", "usage", *store)["bytes"] == 0


def test_a_gateway_of_the_real_binary_answers_as_the_specification_says(network, tree):
    """Headers and statuses over a plain socket; the crate's own tests have the rest."""
    url, home = provider(network, 1)
    cid = network.althing("content", "add", tree, "--home", home).stdout.strip()

    def ask(path, method="GET", **headers):
        request = urllib.request.Request(f"{url}/ipfs/{path}", headers=headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    status, headers, _ = ask(cid, Accept="application/vnd.ipld.car; order=dfs; dups=y")
    assert (status, headers["Content-Type"]) == (200, "application/vnd.ipld.car; version=1; order=dfs; dups=y")
    assert headers["Content-Disposition"] == f'attachment; filename="{cid}.car"'
    assert headers["Access-Control-Allow-Origin"] == "*"
    etag = headers["Etag"]
    assert ask(cid, Accept="application/vnd.ipld.car; order=dfs; dups=y", **{"If-None-Match": etag})[0] == 304
    absent = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    for path, headers, expected in [
        ("bafkqaaa?format=raw", {}, 200), ("bafkqaaa?format=car", {}, 200), ("nonsense", {}, 400),
        (f"{cid}?format=tar", {}, 406), (f"{absent}?format=raw", {}, 404), (f"{cid}/none?format=car", {}, 404),
        (f"{absent}?format=raw", {"Cache-Control": "only-if-cached"}, 412),
    ]:
        assert ask(path, **headers)[0] == expected, path
        assert ask(path, "HEAD", **headers)[0] == expected, path


def test_what_a_provider_denies_is_gone(network, tmp_path):
    """`[content]` in provider.toml: denied blocks, on a home that is started again."""
    directory = tmp_path / "net"
    network.althing("init", directory, "--coordinators", "1", "--providers", "1", "--dev-windows", "--port-base", "7950")
    settings = directory / "providers/0/provider.toml"
    file = tmp_path / "file"
    file.write_text("not to be given out")
    cid = network.althing("content", "add", file, "--home", directory / "providers/0").stdout.strip()
    settings.write_text(settings.read_text() + f'\n[content]\nquota_bytes = 1000000\ndenied = ["{cid}"]\n')
    log = open(tmp_path / "log", "w+")
    processes = []
    try:
        for role, home in [("node", "coordinators/0"), ("provider", "providers/0")]:
            processes.append(subprocess.Popen([BINARY, role, "--home", directory / home], stdout=log, stderr=log))
        listen = next(line.split('"')[1] for line in settings.read_text().splitlines() if line.startswith("listen"))

        def status(path):
            try:
                return urllib.request.urlopen(f"http://{listen}/ipfs/{path}").status
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return None

        until("the provider serves", 60, lambda: status("bafkqaaa"))
        assert status(f"{cid}?format=raw") == 410 and status(cid) == 410
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)
        log.close()
