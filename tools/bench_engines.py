#!/usr/bin/env python3
"""Compares our engine with llama.cpp and candle on the same files, in one run, and prints the ratios.

    cargo build --release && tools/bench_engines.py

Models of about 130 million random weights are made below target/bench; llama-cpp-python and candle
are built there too, for this alone and for this processor (some minutes, once). All engines read the
same tokens: a prompt, then an answer token by token; the best of three. Engines take turns, so that
what else the machine does hits all alike.
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


def run(*command, env=None):
    command = [str(part) for part in command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout


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


def candle():
    environment = os.environ | {"RUSTFLAGS": "-Ctarget-cpu=native", "CARGO_TARGET_DIR": str(BENCH / "candle")}
    print("building candle", file=sys.stderr)
    run("cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", ROOT / "tools/bench_candle/Cargo.toml",
        env=environment)
    return BENCH / "candle/release/bench-candle"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=48, help="tokens of the answer")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--python", type=pathlib.Path, help="a Python that has llama_cpp")
    parser.add_argument("--peers", nargs="*", default=["llama.cpp", "candle"], choices=["llama.cpp", "candle"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    BENCH.mkdir(parents=True, exist_ok=True)
    peers = {}
    if "llama.cpp" in args.peers:
        python = python_with_llama_cpp(args.python)
        peers["llama.cpp"] = lambda path, threads: run(python, "-c", LLAMA_CPP, path, args.prompt, args.answer, threads)
    if "candle" in args.peers:
        program = candle()
        peers["candle"] = lambda path, threads: run(
            program, path, args.prompt, args.answer, env=os.environ | {"RAYON_NUM_THREADS": str(threads)}
        )
    binary = ROOT / "target/release/althing"
    rows = []
    for name in args.formats:
        path = model(name)
        for threads in args.threads:
            common = ["--prompt-tokens", args.prompt, "--tokens", args.answer, "--threads", threads, "--json"]
            ours = json.loads(run(binary, "bench", "model", path, *common))
            rows.append({
                "format": name, "threads": threads,
                "decode": ours["decode_tokens_per_second"], "prefill": ours["prefill_tokens_per_second"],
                "batch": ours["batch"], "batched": ours["decode_batched_tokens_per_second"],
                "load_seconds": ours["load_seconds"], "file_bytes": path.stat().st_size,
                "memory_peak_bytes": ours["memory_peak_bytes"],
                "peers": {peer: json.loads(measure(path, threads)) for peer, measure in peers.items()},
            })
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print("format threads engine    | decode t/s  ours is | prefill t/s  ours is | 8 at once / in turn")
    for row in rows:
        start = f"{row['format']:6} {row['threads']:7}"
        print(f"{start} ours      | {row['decode']:10.1f}          | {row['prefill']:11.1f}          |"
              f" {row['batched'] / row['decode']:6.2f}")
        for peer, theirs in row["peers"].items():
            decode, prefill = row["decode"] / theirs["decode"], row["prefill"] / theirs["prefill"]
            print(f"{start} {peer:9} | {theirs['decode']:10.1f}  {decode:6.2f}x | {theirs['prefill']:11.1f}  {prefill:6.2f}x |")


if __name__ == "__main__":
    main()
