"""A language model that says the words of its prompt, one after another."""

import time

from cog import BaseRunner, ConcatenateIterator, streaming


class Runner(BaseRunner):
    @streaming
    def run(self, prompt: str, max_tokens: int = 8, pause: float = 0.05, seed: int = 0) -> ConcatenateIterator[str]:
        if "explode" in prompt:
            raise ValueError("it exploded")
        words = [f"{word} " for word in prompt.split()] + [f"(seed {seed})"]
        for word in words[:max_tokens]:
            # Cog cancels between steps of Python only.
            for _ in range(600 if "sleep" in prompt else 1):
                time.sleep(pause)
            yield word
