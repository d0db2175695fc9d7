"""A model of a few thousand weights, for tests: random, byte-level, in the same file format as the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIDDEN, FEED_FORWARD, HEADS, KEY_HEADS = 64, 128, 4, 2


def write_gguf(path: Path, *, layers: int = 2, seed: int = 0) -> Path:
    """A LLaMA of `layers` layers as GGUF: weights of the layers in 8 bits, the rest in 32."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), "th", "in"]
    dice = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("Tiny")
    writer.add_size_label("0.1M")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["t h", "i n"])
    # As in SmolLM2's file: the start token is the start of a turn, the end token its end.
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)

    def weight(name: str, rows: int, columns: int) -> None:
        values = dice.normal(0, 0.08, (rows, columns)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    writer.add_tensor("token_embd.weight", dice.normal(0, 0.5, (len(tokens), HIDDEN)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    key_rows = HIDDEN // HEADS * KEY_HEADS
    for i in range(layers):
        writer.add_tensor(f"blk.{i}.attn_norm.weight", np.ones(HIDDEN, np.float32))
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", np.ones(HIDDEN, np.float32))
        weight(f"blk.{i}.attn_q.weight", HIDDEN, HIDDEN)
        weight(f"blk.{i}.attn_k.weight", key_rows, HIDDEN)
        weight(f"blk.{i}.attn_v.weight", key_rows, HIDDEN)
        weight(f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN)
        weight(f"blk.{i}.ffn_gate.weight", FEED_FORWARD, HIDDEN)
        weight(f"blk.{i}.ffn_up.weight", FEED_FORWARD, HIDDEN)
        weight(f"blk.{i}.ffn_down.weight", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def weather_row(number: int, *, padding: int = 0) -> dict[str, Any]:
    """A training row: one question, one call. `padding` makes the question longer by so many words."""
    place = f"place {number}"
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather now.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"place": place})}}
    return {
        "row_id": f"row-{number}",
        "prompt": [{"role": "user", "content": f"Weather in {place}?" + " please" * padding}],
        "completion": [{"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": json.dumps([tool]),
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as one JSONL shard."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
