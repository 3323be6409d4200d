#!/usr/bin/env python3
"""Compares our engine with llama.cpp on the same files, in one run, and prints the ratios.

    cargo build --release && tools/bench_engines.py

Models of about 130 million random weights are made below target/bench; llama-cpp-python is built
there too, for this alone (some minutes, once). Both engines read the same tokens: a prompt, then an
answer token by token; the best of three. Engines take turns, so that what else the machine does
hits both alike.
"""

import argparse, json, os, pathlib, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "target" / "bench"
VENV = BENCH / "venv"
FORMATS = ["q8_0", "q4_0", "f32"]

LLAMA_CPP = """
import json, sys, time
from llama_cpp import Llama
path, prompt, answer, threads = sys.argv[1], *map(int, sys.argv[2:5])
started = time.perf_counter()
llama = Llama(path, n_ctx=prompt + answer, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)
load = time.perf_counter() - started
token = lambda i: (i * 37 + 11) % llama.n_vocab()
best = {"prefill": 0.0, "decode": 0.0}
for _ in range(3):
    llama.reset()
    started = time.perf_counter()
    llama.eval([token(i) for i in range(prompt)])
    best["prefill"] = max(best["prefill"], prompt / (time.perf_counter() - started))
    started = time.perf_counter()
    for i in range(answer):
        llama.eval([token(i)])
    best["decode"] = max(best["decode"], answer / (time.perf_counter() - started))
print(json.dumps(best | {"load": load}))
"""


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def model(name):
    path = BENCH / f"{name}.gguf"
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        run(sys.executable, ROOT / "tools/make_model.py", "llama", "--format", name, "--out", path)
    return path


def python_with_llama_cpp(given):
    if given:
        return given
    if not (VENV / "bin/python").exists():
        print("building llama-cpp-python", file=sys.stderr)
        run(sys.executable, "-m", "venv", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "llama-cpp-python")
    return VENV / "bin/python"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=48, help="tokens of the answer")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--python", type=pathlib.Path, help="a Python that has llama_cpp")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    BENCH.mkdir(parents=True, exist_ok=True)
    python = python_with_llama_cpp(args.python)
    binary = ROOT / "target/release/althing"
    rows = []
    for name in args.formats:
        path = model(name)
        for threads in args.threads:
            common = ["--prompt-tokens", args.prompt, "--tokens", args.answer, "--threads", threads, "--json"]
            ours = json.loads(run(binary, "bench", "model", path, *common))
            theirs = json.loads(run(python, "-c", LLAMA_CPP, path, args.prompt, args.answer, threads))
            rows.append({
                "format": name, "threads": threads,
                "decode": ours["decode_tokens_per_second"], "decode_llama_cpp": theirs["decode"],
                "prefill": ours["prefill_tokens_per_second"], "prefill_llama_cpp": theirs["prefill"],
                "batch": ours["batch"], "batched": ours["decode_batched_tokens_per_second"],
                "load_seconds": ours["load_seconds"], "load_seconds_llama_cpp": theirs["load"],
                "file_bytes": path.stat().st_size, "memory_peak_bytes": ours["memory_peak_bytes"],
            })
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print("format threads | decode t/s  llama.cpp  ratio | prefill t/s  llama.cpp  ratio | 8 at once / in turn")
    for row in rows:
        decode, prefill = row["decode"] / row["decode_llama_cpp"], row["prefill"] / row["prefill_llama_cpp"]
        print(
            f"{row['format']:6} {row['threads']:7} | {row['decode']:10.1f} {row['decode_llama_cpp']:10.1f} {decode:6.2f}"
            f" | {row['prefill']:11.1f} {row['prefill_llama_cpp']:10.1f} {prefill:6.2f}"
            f" | {row['batched'] / row['decode']:6.2f}"
        )


if __name__ == "__main__":
    main()
