"""Trains tiny-stories: a Llama-architecture model of about 0.9 million parameters, on the CPU, from
nothing but corpus.py. Writes the package's tokenizer.json, config.json and model.safetensors.

    python train.py --steps 1000 --out ../package

The run is seeded; floating-point sums of the training library may still differ between machines, so
another run gives another, equally good model, with another CID. The committed weights are the model.
"""

import argparse, json, pathlib, random, struct, time

import jax, jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>"]
VOCAB, DIM, LAYERS, HEADS, KV_HEADS, FFN, CONTEXT = 1024, 128, 4, 4, 2, 352, 256
HEAD_DIM, THETA, EPS = DIM // HEADS, 10000.0, 1e-5
SEQUENCE, BATCH = 136, 32


def train_tokenizer(rng):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = (text for _ in range(20000) for text in corpus.example(rng))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def init(key):
    shapes = {"model.embed_tokens.weight": (VOCAB, DIM), "model.norm.weight": (DIM,)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {
            p + "self_attn.q_proj.weight": (DIM, DIM), p + "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, DIM),
            p + "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, DIM), p + "self_attn.o_proj.weight": (DIM, DIM),
            p + "mlp.gate_proj.weight": (FFN, DIM), p + "mlp.up_proj.weight": (FFN, DIM),
            p + "mlp.down_proj.weight": (DIM, FFN),
            p + "input_layernorm.weight": (DIM,), p + "post_attention_layernorm.weight": (DIM,),
        }
    params = {}
    for name, shape in sorted(shapes.items()):
        key, sub = jax.random.split(key)
        if len(shape) == 1:
            params[name] = jnp.ones(shape)
        else:
            scale = 0.05 if "embed" in name else shape[1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                scale /= (2 * LAYERS) ** 0.5
            params[name] = jax.random.normal(sub, shape) * scale
    return params


def norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPS) * weight


def rope(x):
    t = x.shape[1]
    angle = jnp.arange(t)[:, None] * THETA ** (-jnp.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    a, b = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def forward(params, tokens):
    b, t = tokens.shape
    x = params["model.embed_tokens.weight"][tokens]
    mask = jnp.where(jnp.arange(t)[:, None] >= jnp.arange(t), 0.0, -1e9)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        h = norm(x, params[p + "input_layernorm.weight"])
        q = rope((h @ params[p + "self_attn.q_proj.weight"].T).reshape(b, t, HEADS, HEAD_DIM))
        k = rope((h @ params[p + "self_attn.k_proj.weight"].T).reshape(b, t, KV_HEADS, HEAD_DIM))
        v = (h @ params[p + "self_attn.v_proj.weight"].T).reshape(b, t, KV_HEADS, HEAD_DIM)
        k, v = (jnp.repeat(z, HEADS // KV_HEADS, 2) for z in (k, v))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / HEAD_DIM**0.5 + mask
        out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v).reshape(b, t, DIM)
        x = x + out @ params[p + "self_attn.o_proj.weight"].T
        h = norm(x, params[p + "post_attention_layernorm.weight"])
        gate = jax.nn.silu(h @ params[p + "mlp.gate_proj.weight"].T)
        x = x + (gate * (h @ params[p + "mlp.up_proj.weight"].T)) @ params[p + "mlp.down_proj.weight"].T
    return norm(x, params["model.norm.weight"]) @ params["model.embed_tokens.weight"].T


def loss_of(params, tokens, weight):
    logits = forward(params, tokens[:, :-1])
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits, -1), tokens[:, 1:, None], -1)[..., 0]
    return (nll * weight).sum() / weight.sum()


@jax.jit
def step(params, m, v, tokens, weight, lr, n):
    loss, grads = jax.value_and_grad(loss_of)(params, tokens, weight)
    size = jnp.sqrt(sum((g * g).sum() for g in grads.values()))
    new = ({}, {}, {})
    for name, g in grads.items():
        g = g * jnp.minimum(1.0, 1.0 / (size + 1e-6))
        new[1][name] = 0.9 * m[name] + 0.1 * g
        new[2][name] = 0.95 * v[name] + 0.05 * g * g
        update = (new[1][name] / (1 - 0.9**n)) / (jnp.sqrt(new[2][name] / (1 - 0.95**n)) + 1e-8)
        decay = 0.05 if g.ndim == 2 else 0.0
        new[0][name] = params[name] - lr * (update + decay * params[name])
    return *new, loss


def batch(rng, tokenizer):
    tokens = np.zeros((BATCH, SEQUENCE + 1), np.int32)
    weight = np.zeros((BATCH, SEQUENCE), np.float32)
    for row in range(BATCH):
        ask, answer = corpus.example(rng)
        prompt = tokenizer.encode(corpus.render(ask, "").removesuffix("<|end|>")).ids
        ids = tokenizer.encode(corpus.render(ask, answer)).ids[: SEQUENCE + 1]
        tokens[row, : len(ids)] = ids
        weight[row, len(prompt) - 1 : len(ids) - 1] = 1.0
    return tokens, weight


def write_safetensors(path, params):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in sorted(params.items()):
        data = np.asarray(value, np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [offset, offset + len(data)]}
        blobs.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def save(out, params, tokenizer):
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": DIM,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS,
        "rope_theta": THETA, "tie_word_embeddings": True, "vocab_size": VOCAB, "eos_token_id": 0, "torch_dtype": "float16",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_safetensors(out / "model.safetensors", params)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--steps", type=int, default=1000)
    args.add_argument("--out", type=pathlib.Path, default=pathlib.Path("../package"))
    args = args.parse_args()
    rng = random.Random(2026)
    tokenizer = train_tokenizer(rng)
    params = init(jax.random.PRNGKey(2026))
    print("parameters", sum(p.size for p in params.values()), flush=True)
    m = {k: jnp.zeros_like(p) for k, p in params.items()}
    v = {k: jnp.zeros_like(p) for k, p in params.items()}
    begun = time.time()
    for n in range(1, args.steps + 1):
        progress = n / args.steps
        lr = 4e-3 * min(1.0, n / 100) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))
        params, m, v, loss = step(params, m, v, *batch(rng, tokenizer), lr, n)
        if n % 50 == 0:
            print(f"step {n} loss {loss:.4f} {time.time() - begun:.0f} s", flush=True)
        if n % 250 == 0:
            save(args.out, params, tokenizer)
    save(args.out, params, tokenizer)


if __name__ == "__main__":
    main()
