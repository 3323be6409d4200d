"""Writes ../prompts.json, the prompts that the model is accepted by: forty of its domain, each about
another subject, and ten about what it does not know.

    python prompts.py
"""

import json, pathlib, random

import corpus

rng = random.Random(40)
subjects = rng.sample(sorted(corpus.SUBJECTS), 40)
known = [{"prompt": corpus.prompt(rng, s)[0], "subject": s} for s in subjects]
words = ["fridge", "volcano", "trumpet", "kangaroo", "bridge"]
unknown = [corpus.prompt(rng, word)[0] for word in words]
unknown += ["What is the capital of France?", "How do I cook rice?", "Tell me a joke", "Hello", "Why is the sky blue?"]
text = json.dumps({"known": known, "unknown": unknown, "fallback": corpus.FALLBACK}, indent=1)
pathlib.Path(__file__).with_name("..").joinpath("prompts.json").resolve().write_text(text + "\n")
