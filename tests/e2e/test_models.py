"""Models of one's own: a GGUF file run without a network, and served in one."""

import json, subprocess

from conftest import BINARY, ROOT, Network

# Random weights, with a tokenizer and a template: what it says has no sense, but always the same bits.
MODEL = ROOT / "crates/exact/tests/fixtures/llama.gguf"


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
