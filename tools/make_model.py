#!/usr/bin/env python3
"""Writes a model with random weights, for tests and measurements of speed.

The same seed gives the same weights in a GGUF file and in a Hugging Face directory, so that engines
can be compared on both. The tokenizer is a small one, made from the text below; the rest of the
vocabulary is unused tokens.

    tools/make_model.py llama --format q8_0 --out model.gguf
    tools/make_model.py qwen2 --hidden 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512 --hf directory
"""

import argparse
import json
import os
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "target" / "make_model_venv"

try:
    import gguf
    import numpy as np
except ImportError:
    if Path(sys.prefix) == VENV:
        raise
    if not (VENV / "bin" / "python").exists():
        print(f"installing tools/requirements.txt below {VENV}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    requirements = ROOT / "tools" / "requirements.txt"
    subprocess.run([VENV / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), __file__, *sys.argv[1:]])

FAMILIES = ["llama", "qwen2", "qwen3", "gpt_neox", "bloom", "bert"]
FORMATS = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"]

TEXT = """
The thing was first a place: a field with a rock in it where free men met once a year, spoke the law
aloud and settled what they could not settle at home. Nobody owned the place and nobody could close it.
Whoever had a case brought witnesses; whoever judged gave reasons; what was decided was said before all.
A model is a long list of numbers and a rule for using them. Given the same numbers, the same rule and
the same question, any two machines must give the same answer, or else one of them is wrong.
Hello there! What is it that you want? I don't know, we'll see; they're here, and it's 12:30 on 7 May.
"""

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THETA = 10000.0
EPSILON = 1e-5


# --- Tokenizers -------------------------------------------------------------------------------------


def byte_letters():
    """The visible letter that stands for each byte in byte-level BPE."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, others = {byte: chr(byte) for byte in visible}, 0
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + others)
            others += 1
    return letters


def byte_level_bpe(size):
    """Tokens and merges, trained on TEXT: special ones first, then bytes, then merges."""
    letters = byte_letters()
    words = Counter()
    for word in re.findall(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+", TEXT):
        words[tuple(letters[byte] for byte in word.encode())] += 1
    tokens, merges = SPECIAL + [letters[byte] for byte in range(256)], []
    while len(merges) < 400 and len(tokens) < size:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = max(pairs.items(), key=lambda item: (item[1], item[0]), default=None)
        if best is None or best[1] < 2:
            break
        (a, b), merged = best[0], Counter()
        merges.append((a, b))
        tokens.append(a + b)
        for word, count in words.items():
            new, at = [], 0
            while at < len(word):
                if word[at : at + 2] == (a, b):
                    new.append(a + b)
                    at += 2
                else:
                    new.append(word[at])
                    at += 1
            merged[tuple(new)] += count
        words = merged
    if len(tokens) > size:
        sys.exit(f"--vocab must be at least {len(tokens)}")
    used = len(tokens)
    return tokens + [f"<unused_{i}>" for i in range(size - used)], merges, used


def word_pieces(size):
    """A WordPiece vocabulary: special tokens, letters, continuations, and the words of TEXT."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for letter in TEXT.lower() if not letter.isspace()})
    tokens += letters + ["##" + letter for letter in letters if letter.isalnum()]
    words = Counter(re.findall("[a-z]+", TEXT.lower()))
    tokens += [word for word, _ in words.most_common() if len(word) > 1][: max(0, size - len(tokens))]
    if len(tokens) > size:
        sys.exit(f"--vocab must be at least {len(tokens)}")
    return tokens + [f"[unused{i}]" for i in range(size - len(tokens))]


def tokenizer_json(family, size):
    def added(ids):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        return [{"id": id, "content": tokens[id], **flags} for id in ids]

    base = {"version": "1.0", "truncation": None, "padding": None}
    if family == "bert":
        tokens = word_pieces(size)
        bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
        model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        return base | {
            "added_tokens": added(range(5)),
            "normalizer": bert | {"lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": model | {"max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(tokens)}},
        }
    tokens, merges, _ = byte_level_bpe(size)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return base | {
        "added_tokens": added(range(len(SPECIAL))),
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model | {"vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }


def add_gguf_tokenizer(writer, family, size):
    types = gguf.TokenType
    if family == "bert":
        tokens = word_pieces(size)

        def phantom(token):
            if token.startswith("[") and token.endswith("]"):
                return token
            return token[2:] if token.startswith("##") else "\u2581" + token

        writer.add_tokenizer_model("bert")
        writer.add_token_list([phantom(token) for token in tokens])
        writer.add_token_types([types.CONTROL] * 5 + [types.NORMAL] * (size - 5))
        writer.add_token_type_count(2)
        writer.add_pad_token_id(0)
        writer.add_unk_token_id(1)
        writer.add_bos_token_id(2)
        writer.add_sep_token_id(3)
        writer.add_mask_token_id(4)
        return
    tokens, merges, used = byte_level_bpe(size)
    special = len(SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([types.CONTROL] * special + [types.NORMAL] * (used - special) + [types.UNUSED] * (size - used))
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


# --- Shapes: Hugging Face's name, GGUF's name, shape --------------------------------------------------


def shapes(args):
    """All tensors: (Hugging Face name, GGUF name, shape, how GGUF orders the rows)."""
    h, f, v, d = args.hidden, args.ffn, args.vocab, args.head_dim
    q, kv = args.heads * d, args.kv_heads * d
    norm, list_ = (lambda hf, gg, n: [(hf + ".weight", gg + ".weight", (n,), None)]), []
    both = lambda hf, gg, n, k, order=None: [  # noqa: E731
        (hf + ".weight", gg + ".weight", (n, k), order),
        (hf + ".bias", gg + ".bias", (n,), order),
    ]
    both_norm = lambda hf, gg: [(hf + "." + p, gg + "." + p, (h,), None) for p in ("weight", "bias")]  # noqa: E731
    matrix = lambda hf, gg, n, k, order=None: [(hf + ".weight", gg + ".weight", (n, k), order)]  # noqa: E731
    if args.family in ("llama", "qwen2", "qwen3"):
        list_ += matrix("model.embed_tokens", "token_embd", v, h) + norm("model.norm", "output_norm", h)
        if not args.tied:
            list_ += matrix("lm_head", "output", v, h)
        linear = both if args.family == "qwen2" else matrix
        order = "pairs" if args.family == "llama" else None
        for i in range(args.layers):
            hf, gg = f"model.layers.{i}.", f"blk.{i}."
            list_ += norm(hf + "input_layernorm", gg + "attn_norm", h)
            list_ += linear(hf + "self_attn.q_proj", gg + "attn_q", q, h, order)
            list_ += linear(hf + "self_attn.k_proj", gg + "attn_k", kv, h, order)
            list_ += linear(hf + "self_attn.v_proj", gg + "attn_v", kv, h)
            list_ += matrix(hf + "self_attn.o_proj", gg + "attn_output", h, q)
            if args.family == "qwen3":
                list_ += norm(hf + "self_attn.q_norm", gg + "attn_q_norm", d)
                list_ += norm(hf + "self_attn.k_norm", gg + "attn_k_norm", d)
            list_ += norm(hf + "post_attention_layernorm", gg + "ffn_norm", h)
            list_ += matrix(hf + "mlp.gate_proj", gg + "ffn_gate", f, h)
            list_ += matrix(hf + "mlp.up_proj", gg + "ffn_up", f, h)
            list_ += matrix(hf + "mlp.down_proj", gg + "ffn_down", h, f)
    elif args.family in ("gpt_neox", "bloom"):
        neox = args.family == "gpt_neox"
        if neox:
            list_ += matrix("gpt_neox.embed_in", "token_embd", v, h) + matrix("embed_out", "output", v, h)
            list_ += both_norm("gpt_neox.final_layer_norm", "output_norm")
        else:
            list_ += matrix("transformer.word_embeddings", "token_embd", v, h)
            list_ += both_norm("transformer.word_embeddings_layernorm", "token_embd_norm")
            list_ += both_norm("transformer.ln_f", "output_norm")
        attention = "attention" if neox else "self_attention"
        for i in range(args.layers):
            hf, gg = f"gpt_neox.layers.{i}." if neox else f"transformer.h.{i}.", f"blk.{i}."
            list_ += both_norm(hf + "input_layernorm", gg + "attn_norm")
            list_ += both(hf + attention + ".query_key_value", gg + "attn_qkv", 3 * h, h, "qkv")
            list_ += both(hf + attention + ".dense", gg + "attn_output", h, h)
            list_ += both_norm(hf + "post_attention_layernorm", gg + "ffn_norm")
            list_ += both(hf + "mlp.dense_h_to_4h", gg + "ffn_up", f, h)
            list_ += both(hf + "mlp.dense_4h_to_h", gg + "ffn_down", h, f)
    else:
        list_ += matrix("embeddings.word_embeddings", "token_embd", v, h)
        list_ += matrix("embeddings.position_embeddings", "position_embd", args.context, h, "f32")
        list_ += matrix("embeddings.token_type_embeddings", "token_types", 2, h, "f32")
        list_ += both_norm("embeddings.LayerNorm", "token_embd_norm")
        for i in range(args.layers):
            hf, gg = f"encoder.layer.{i}.", f"blk.{i}."
            for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
                list_ += both(hf + "attention.self." + theirs, gg + "attn_" + ours, h, h)
            list_ += both(hf + "attention.output.dense", gg + "attn_output", h, h)
            list_ += both_norm(hf + "attention.output.LayerNorm", gg + "attn_output_norm")
            list_ += both(hf + "intermediate.dense", gg + "ffn_up", f, h)
            list_ += both(hf + "output.dense", gg + "ffn_down", h, f)
            list_ += both_norm(hf + "output.LayerNorm", gg + "layer_output_norm")
    return list_


def weights(args, name, shape):
    """The tensor of this Hugging Face name: norms about 1, biases about 0, rows of length about 1."""
    generator = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
    values = generator.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        is_norm = "norm" in name.lower() or name == "transformer.ln_f.weight"
        return values * np.float32(0.1) + np.float32(1.0 if is_norm and name.endswith(".weight") else 0.0)
    return values * np.float32(1 / np.sqrt(shape[1]))


def gguf_order(args, values, order):
    """Rows in the order that GGUF files have them in."""
    rest = values.shape[1:]
    if order == "pairs":
        heads = values.shape[0] // args.head_dim
        return values.reshape(heads, 2, args.head_dim // 2, *rest).swapaxes(1, 2).reshape(values.shape)
    if order == "qkv":
        return values.reshape(args.heads, 3, args.head_dim, *rest).swapaxes(0, 1).reshape(values.shape)
    return values


# --- Formats ------------------------------------------------------------------------------------------


def quantize_q4_k(rows):
    """Blocks of 256 in the simplest way: each 32 elements from their least to their greatest."""
    x = rows.reshape(-1, 8, 32)
    least = np.maximum(-x.min(axis=2), 0)
    scale = (np.maximum(x.max(axis=2), 0) + least) / 15
    d, dmin = (part.max(axis=1, keepdims=True) / 63 for part in (scale, least))
    d, dmin = d.astype(np.float16), dmin.astype(np.float16)
    wide = [part.astype(np.float32) for part in (d, dmin)]
    sc, m = (np.clip(np.rint(part / np.maximum(w, 1e-12)), 0, 63).astype(np.uint8) for part, w in zip((scale, least), wide))
    step = np.maximum(wide[0] * sc, 1e-12)[:, :, None]
    q = np.clip(np.rint((x + (wide[1] * m)[:, :, None]) / step), 0, 15).astype(np.uint8)
    packed = np.concatenate([sc[:, :4] | (sc[:, 4:] >> 4 << 6), m[:, :4] | (m[:, 4:] >> 4 << 6), (sc[:, 4:] & 15) | (m[:, 4:] << 4)], axis=1)
    q = q.reshape(-1, 4, 2, 32)
    q = (q[:, :, 0] | (q[:, :, 1] << 4)).reshape(-1, 128)
    blocks = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), packed, q], axis=1)
    return blocks.reshape(rows.shape[0], -1)


def quantize_q6_k(rows):
    """Blocks of 256 in the simplest way: each 16 elements by their greatest magnitude."""
    x = rows.reshape(-1, 16, 16)
    scale = np.abs(x).max(axis=2) / 31
    d = (scale.max(axis=1, keepdims=True) / 127).astype(np.float16)
    wide = np.maximum(d.astype(np.float32), 1e-12)
    sc = np.clip(np.rint(scale / wide), 0, 127).astype(np.int8)
    step = np.maximum(wide * sc, 1e-12)[:, :, None]
    q = (np.clip(np.rint(x / step), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([(q[:, :, 0] & 15) | (q[:, :, 2] & 15) << 4, (q[:, :, 1] & 15) | (q[:, :, 3] & 15) << 4], axis=2)
    high = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    blocks = np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), sc.view(np.uint8), d.view(np.uint8)], axis=1)
    return blocks.reshape(rows.shape[0], -1)


def add_gguf_tensor(writer, name, values, form):
    types = gguf.GGMLQuantizationType
    if form in ("q4_k", "q6_k") and values.ndim == 2 and values.shape[1] % 256 == 0:
        raw, kind = (quantize_q4_k(values), types.Q4_K) if form == "q4_k" else (quantize_q6_k(values), types.Q6_K)
        return writer.add_tensor(name, raw, raw_dtype=kind)
    # Rows that are not whole blocks of 256 are kept in smaller blocks, as llama.cpp does.
    form = "q8_0" if form in ("q4_k", "q6_k") else form
    if form == "f32" or values.ndim == 1:
        return writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    kind = {"f16": types.F16, "bf16": types.BF16, "q8_0": types.Q8_0, "q4_0": types.Q4_0}[form]
    if kind == types.F16:
        return writer.add_tensor(name, values.astype(np.float16))
    return writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)


# --- Files --------------------------------------------------------------------------------------------


def write_gguf(args):
    architecture = "gptneox" if args.family == "gpt_neox" else args.family
    writer = gguf.GGUFWriter(args.out, architecture)
    writer.add_name(f"random-{args.family}")
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.hidden)
    writer.add_block_count(args.layers)
    writer.add_feed_forward_length(args.ffn)
    writer.add_head_count(args.heads)
    if args.family in ("llama", "qwen2", "qwen3"):
        writer.add_head_count_kv(args.kv_heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_freq_base(THETA)
        writer.add_rope_dimension_count(args.head_dim)
        writer.add_key_length(args.head_dim)
        writer.add_value_length(args.head_dim)
        writer.add_vocab_size(args.vocab)
    else:
        writer.add_layer_norm_eps(EPSILON)
    if args.family == "gpt_neox":
        writer.add_rope_dimension_count(args.head_dim // 4)
        writer.add_parallel_residual(True)
    if args.family == "bloom":
        writer.add_head_count_kv(args.heads)
    if args.family == "bert":
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    add_gguf_tokenizer(writer, args.family, args.vocab)
    for hf_name, name, shape, order in shapes(args):
        values = gguf_order(args, weights(args, hf_name, shape), order)
        add_gguf_tensor(writer, name, values, "f32" if order == "f32" else args.format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def config_json(args):
    config = {"model_type": args.family, "vocab_size": args.vocab, "hidden_size": args.hidden}
    if args.family == "bloom":
        config |= {"n_layer": args.layers, "n_head": args.heads, "layer_norm_epsilon": EPSILON, "seq_length": args.context}
        return config | {"architectures": ["BloomForCausalLM"], "bos_token_id": 0, "eos_token_id": 2}
    config |= {"num_hidden_layers": args.layers, "num_attention_heads": args.heads, "intermediate_size": args.ffn}
    config |= {"max_position_embeddings": args.context}
    if args.family == "bert":
        config |= {"architectures": ["BertModel"], "layer_norm_eps": EPSILON, "hidden_act": "gelu", "type_vocab_size": 2}
        return config | {"position_embedding_type": "absolute"}
    config |= {"bos_token_id": 0, "eos_token_id": [0, 2], "tie_word_embeddings": args.tied}
    if args.family == "gpt_neox":
        config |= {"layer_norm_eps": EPSILON, "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": THETA}
        return config | {"architectures": ["GPTNeoXForCausalLM"], "use_parallel_residual": True}
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[args.family]
    config |= {"num_key_value_heads": args.kv_heads, "head_dim": args.head_dim, "rms_norm_eps": EPSILON}
    return config | {"architectures": [name + "ForCausalLM"], "rope_theta": THETA, "hidden_act": "silu"}


def write_hf(args):
    directory = Path(args.hf)
    directory.mkdir(parents=True, exist_ok=True)

    def write(name, value):
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, ensure_ascii=False) + "\n")

    write("config.json", config_json(args))
    write("tokenizer.json", tokenizer_json(args.family, args.vocab))
    if args.family == "bert":
        write("1_Pooling/config.json", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
        kinds = ["Transformer", "Pooling", "Normalize"]
        write("modules.json", [{"type": "sentence_transformers.models." + kind} for kind in kinds])
    else:
        write("tokenizer_config.json", {"bos_token": SPECIAL[0], "eos_token": SPECIAL[2], "add_bos_token": False, "chat_template": TEMPLATE})
    write_safetensors(args, directory / "model.safetensors")


def write_safetensors(args, path):
    """A header of JSON, padded to eight bytes, then the tensors, one at a time."""
    kind, size = {"f16": ("F16", 2), "bf16": ("BF16", 2)}.get(args.format, ("F32", 4))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, _, shape, _ in shapes(args):
        end = at + size * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, _, shape, _ in shapes(args):
            values = weights(args, name, shape)
            if kind == "BF16":
                rows = values.reshape(-1, values.shape[-1])
                values = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.BF16)
            file.write(values.astype(np.float16).tobytes() if kind == "F16" else values.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--kv-heads", type=int, help="as many as --heads unless given")
    parser.add_argument("--head-dim", type=int, help="--hidden / --heads unless given")
    parser.add_argument("--ffn", type=int, help="2,048; four times --hidden for bloom")
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tied", action="store_true", help="the output head is the embedding")
    parser.add_argument("--format", choices=FORMATS, default="f32", help="quantized ones are f32 with --hf")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="GGUF file to write")
    parser.add_argument("--hf", help="Hugging Face directory to write")
    args = parser.parse_args()
    if not args.out and not args.hf:
        parser.error("--out or --hf is needed")
    args.kv_heads = args.kv_heads or args.heads
    args.head_dim = args.head_dim or args.hidden // args.heads
    args.ffn = args.ffn or (4 * args.hidden if args.family == "bloom" else 2048)
    if args.family in ("gpt_neox", "bloom", "bert") and args.head_dim * args.heads != args.hidden:
        parser.error("--hidden must be --heads times --head-dim")
    if args.family == "bloom" and args.ffn != 4 * args.hidden:
        parser.error("bloom's --ffn is four times its --hidden")
    if args.out:
        write_gguf(args)
    if args.hf:
        write_hf(args)


if __name__ == "__main__":
    main()
