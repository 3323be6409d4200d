#!/usr/bin/env python3
"""Compares every family's numbers with transformers' in f32, on models with random weights.

For each family: the logits after every token (for bert, the embedding) of the same weights, as a
Hugging Face directory and as a GGUF file. The largest difference is stated as a part of the largest
logit, and must be below the tolerance: both sides round differently, and neither is more right.

    tools/compare_reference.py [FAMILY …]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "target" / "bench" / "reference"
FAMILIES = ["llama", "qwen2", "qwen3", "gpt_neox", "bloom", "bert"]
TOLERANCE = 1e-5

try:
    import numpy as np
    import torch
    import transformers
except ImportError:
    if Path(sys.prefix) == VENV:
        raise
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    print(f"installing torch and transformers below {VENV}", file=sys.stderr)
    subprocess.run([VENV / "bin" / "pip", "install", "--quiet", "numpy", "safetensors", "torch", "transformers"], check=True)
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), __file__, *sys.argv[1:]])


def ours(path, tokens, embed):
    command = ["cargo", "run", "--quiet", "--release", "-p", "althing-exact", "--example", "logits", "--", path]
    command += [",".join(map(str, tokens))] + (["--embed"] if embed else [])
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return np.frombuffer(done.stdout, dtype="<f4")


@torch.no_grad()
def theirs(path, tokens, embed):
    ids = torch.tensor([tokens])
    if not embed:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
        return model(ids).logits[0].flatten().numpy()
    model = transformers.BertModel.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    mean = model(ids).last_hidden_state[0].mean(dim=0)
    return torch.nn.functional.normalize(mean, dim=0).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="of " + ", ".join(FAMILIES))
    families = parser.parse_args().families or FAMILIES
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = False
    for family in families:
        directory = ROOT / "target" / "bench" / f"reference-{family}"
        directory.mkdir(parents=True, exist_ok=True)
        size = ["--hidden", "192", "--layers", "4", "--heads", "6", "--ffn", "768", "--vocab", "1500", "--context", "256"]
        size += ["--kv-heads", "2"] if family in ("llama", "qwen2", "qwen3") else []
        make = [ROOT / "tools" / "make_model.py", family, *size, "--format", "f32"]
        gguf = directory / "model.gguf"
        subprocess.run(["python3", *make, "--out", gguf, "--hf", directory / "hf"], check=True)
        tokens = [(i * 37 + 11) % 1000 for i in range(150)]
        embed = family == "bert"
        expected = theirs(directory / "hf", tokens, embed)
        for kind, path in (("hugging face", directory / "hf"), ("gguf", gguf)):
            got = ours(path, tokens, embed)
            assert got.shape == expected.shape and np.isfinite(got).all(), (got.shape, expected.shape)
            difference = np.abs(got - expected).max() / np.abs(expected).max()
            verdict = "ok" if difference < TOLERANCE else "TOO FAR"
            failed |= not difference < TOLERANCE
            print(f"{family:9} {kind:13} largest difference {difference:.1e} of the largest number  {verdict}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
