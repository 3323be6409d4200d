"""Models of one's own: a GGUF file run without a network, and served in one."""

import base64, json, struct, subprocess

import openai, pytest

from conftest import BINARY, ROOT, Network

# Random weights, with a tokenizer and a template: what it says has no sense, but always the same bits.
FIXTURES = ROOT / "crates/exact/tests/fixtures"
MODEL = FIXTURES / "llama.gguf"


def run(*args, check=True):
    done = subprocess.run([BINARY, "model", "run", *map(str, args)], capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_a_gguf_file_runs_without_a_network_with_the_same_bits_at_every_level():
    answers = {}
    for level in ["auto", "scalar"]:
        for threads in [1, 2]:
            done = run(MODEL, "--prompt", "The thing was", "--seed", 5, "--temperature", "0.9", "--max-tokens", 16,
                       "--threads", threads, "--level", level, "--json")
            answers[level, threads] = json.loads(done.stdout)
    first = answers["auto", 1]
    assert first["completion_tokens"] == 16 and first["decode_tokens_per_second"] > 0
    assert first["memory_peak_bytes"] > first["weights_bytes"] > 0
    for answer in answers.values():
        assert (answer["text"], answer["logits_digest"]) == (first["text"], first["logits_digest"])
    chat = run(MODEL, "--prompt", "Hello there!", "--chat", "--max-tokens", 4)
    assert "tokens/s" in chat.stderr and "digest of all logits" in chat.stderr
    speed = json.loads(subprocess.run(
        [BINARY, "bench", "model", MODEL, "--prompt-tokens", "32", "--tokens", "8", "--json"],
        capture_output=True, text=True, check=True,
    ).stdout)
    assert speed["prefill_tokens_per_second"] > 0 and speed["batch"] == 8


def model(*args):
    return subprocess.run([BINARY, "model", *map(str, args)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("family", ["gpt_neox", "bloom"])
def test_other_families_answer_alike_from_both_kinds_of_file(family):
    runs = []
    for path in [FIXTURES / f"{family}.gguf", FIXTURES / family]:
        done = run(path, "--prompt", "The thing was", "--seed", 3, "--temperature", "1", "--max-tokens", 12, "--json")
        runs.append(json.loads(done.stdout))
    assert runs[0]["completion_tokens"] > 0 and runs[0]["logits_digest"] == runs[1]["logits_digest"]


def test_an_answer_is_checked_by_whoever_has_the_model(tmp_path):
    """V-4: every token and every logit, in one reading."""
    transcript, forged = tmp_path / "transcript.json", tmp_path / "forged.json"
    run(MODEL, "--prompt", "The thing was", "--seed", 5, "--temperature", "0.9", "--max-tokens", 30, "--transcript", transcript)
    for level in ["auto", "scalar"]:
        done = model("check", MODEL, transcript, "--level", level, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["tokens"] == 30, done.stderr
    written = json.loads(transcript.read_text())
    token = written["tokens"][9]
    for change, expected in [
        ({"tokens": written["tokens"][:9] + [token + 1] + written["tokens"][10:]}, "token 9 is"),
        ({"tokens": written["tokens"][:-1]}, "goes on after the 29 tokens"),
        ({"text": "something else"}, "its text is not that of its tokens"),
        ({"trace_root": "00" * 32}, "its trace root is 00"),
        ({"trace_version": 9}, "traces of version 9"),
        ({"more": 1}, "is not what `model run --transcript` writes"),
    ]:
        forged.write_text(json.dumps(written | change))
        done = model("check", MODEL, forged)
        assert done.returncode != 0 and expected in done.stderr, (change, done.stderr)


def test_texts_become_vectors_without_a_network():
    texts = ["free men met once a year", "they met once a year", "any two machines"]
    runs = {}
    for path in ["bert.gguf", "bert"]:
        for level in ["auto", "scalar"]:
            done = model("embed", FIXTURES / path, *texts, "--level", level, "--json")
            runs[path, level] = json.loads(done.stdout)
    first = runs["bert", "auto"]
    assert [len(entry["vector"]) for entry in first["embeddings"]] == [16, 16, 16]
    assert abs(sum(x * x for x in first["embeddings"][0]["vector"]) - 1) < 1e-5
    for other in runs.values():
        assert (other["embeddings"], other["trace_root"]) == (first["embeddings"], first["trace_root"])
    alone = json.loads(model("embed", FIXTURES / "bert", texts[1], "--json").stdout)
    assert alone["embeddings"][0] == first["embeddings"][1]
    assert "alike" in model("embed", FIXTURES / "bert", *texts).stdout
    for args, expected in [([MODEL, "x"], '"llama" is not "bert"'), ([FIXTURES / "bert", "law " * 70], "text 0 has")]:
        done = model("embed", *args)
        assert done.returncode != 0 and expected in done.stderr, done.stderr
    wrong = run(FIXTURES / "bert", "--prompt", "x", check=False)
    assert wrong.returncode != 0 and "it makes embeddings" in wrong.stderr


def test_embeddings_come_through_orders(tmp_path):
    network = Network(tmp_path, "--model", FIXTURES / "bert.gguf", "--providers", "2")
    try:
        client = network.client()
        texts = ["free men met once a year", "any two machines"]
        alone = json.loads(model("embed", FIXTURES / "bert.gguf", *texts, "--json").stdout)
        expected = [entry["vector"] for entry in alone["embeddings"]]

        def close(data):
            got = [entry.embedding for entry in data]
            return all(struct.pack("<16f", *a) == struct.pack("<16f", *b) for a, b in zip(got, expected, strict=True))

        # The official client asks for base64 by itself.
        chosen = client.embeddings.create(model="bert", input=texts)
        assert close(chosen.data) and [entry.index for entry in chosen.data] == [0, 1]
        assert chosen.usage.prompt_tokens == chosen.usage.total_tokens == alone["prompt_tokens"]
        raced = client.embeddings.create(model="bert:open", input=texts, encoding_format="float")
        assert close(raced.data)
        assert raced.model_extra["althing"]["verification"] == "agreed"
        raw = client.embeddings.with_raw_response.create(model="bert", input=texts[0], encoding_format="base64")
        vector = json.loads(raw.content)["data"][0]["embedding"]
        assert base64.b64decode(vector) == struct.pack("<16f", *expected[0])
        assert raw.headers["x-althing-receipt"].startswith("/v1/receipts/")
        for wrong, code in [
            (lambda: client.embeddings.create(model="bert", input=[]), "invalid_value"),
            (lambda: client.embeddings.create(model="bert", input="x", dimensions=4), "invalid_value"),
            (lambda: client.embeddings.create(model="bert", input=[[1, 2]]), "invalid_value"),
            (lambda: client.embeddings.create(model="bert", input="law " * 70), "context_length_exceeded"),
            (lambda: client.embeddings.create(model="tiny-stories", input="x"), "wrong_interface"),
            (lambda: client.chat.completions.create(model="bert", messages=[{"role": "user", "content": "x"}]), "wrong_interface"),
        ]:
            with pytest.raises(openai.BadRequestError) as refused:
                wrong()
            assert refused.value.code == code
    finally:
        network.stop()


def test_mistakes_are_explained(tmp_path):
    for args, expected in [
        ([tmp_path, "--prompt", "x"], "neither a GGUF file nor a directory"),
        ([tmp_path / "nowhere.gguf", "--prompt", "x"], "nowhere.gguf"),
        ([ROOT / "README.md", "--prompt", "x"], "not a GGUF file"),
        ([MODEL, "--prompt", "x", "--level", "mmx"], "is not a level"),
        ([MODEL, "--prompt", "x " * 200], "64 tokens"),
        ([MODEL, "--prompt", "x", "--top-p", "2"], "--top-p"),
    ]:
        done = run(*args, check=False)
        assert done.returncode != 0 and expected in done.stderr, (args, done.stderr)


def test_a_model_of_ones_own_is_served_by_a_whole_network(tmp_path):
    network = Network(tmp_path, "--model", MODEL, "--providers", "2")
    try:
        client = network.client()
        assert {"llama", "llama:open", "tiny-stories"} <= {model.id for model in client.models.list()}
        ask = dict(messages=[{"role": "user", "content": "Hello there!"}], max_tokens=6, temperature=0)
        chosen = client.chat.completions.create(model="llama", **ask)
        raced = client.chat.completions.create(model="llama:open", **ask)
        assert chosen.choices[0].message.content == raced.choices[0].message.content
        assert chosen.usage.completion_tokens > 0
        story = client.chat.completions.create(
            model="tiny-stories", messages=[{"role": "user", "content": "Tell me a story about an owl"}]
        )
        assert "owl" in story.choices[0].message.content.lower()
    finally:
        network.stop()
    # A network that was made without a model does not get it later.
    again = subprocess.run(
        [BINARY, "dev", "--data", tmp_path / "data", "--model", ROOT / "models/tiny-stories/package", "--ask", "x", "--exit"],
        capture_output=True, text=True, timeout=120,
    )
    assert again.returncode != 0 and "give yours another name" in again.stderr
