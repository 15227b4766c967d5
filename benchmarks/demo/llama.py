"""What a Llama checkpoint in GGUF says of itself, in the terms of transformers."""

from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

CONTROL_TOKEN = 3
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def weight_name(name: str) -> str:
    """A tensor's name in transformers."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def config(said: dict[str, Any]) -> LlamaConfig:
    """The architecture, from the metadata."""
    heads = said["llama.attention.head_count"]
    return LlamaConfig(
        hidden_size=said["llama.embedding_length"],
        intermediate_size=said["llama.feed_forward_length"],
        num_hidden_layers=said["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=said["llama.attention.head_count_kv"],
        max_position_embeddings=said["llama.context_length"],
        rms_norm_eps=round(said["llama.attention.layer_norm_rms_epsilon"], 9),
        rope_parameters={"rope_type": "default", "rope_theta": said["llama.rope.freq_base"]},
        vocab_size=said["llama.vocab_size"],
        tie_word_embeddings=True,
        bos_token_id=said["tokenizer.ggml.bos_token_id"],
        eos_token_id=said["tokenizer.ggml.eos_token_id"],
        pad_token_id=said["tokenizer.ggml.padding_token_id"],
        dtype="bfloat16",
    )


def rotary(weight: np.ndarray, *, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of rows within a head (pairs beside each other; transformers has them half a head apart).

    weight: [heads * d, n]; rows 2i and 2i+1 of a head go to i and i + d/2.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer(said: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits: what `tokenizer.ggml.pre = smollm` stands for."""
    tokens = said["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    bpe.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, said["tokenizer.ggml.token_type"], strict=True)
               if kind == CONTROL_TOKEN]  # fmt: skip
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=tokens[1], eos_token=tokens[2], pad_token=tokens[2], unk_token=tokens[0],
        model_max_length=said["llama.context_length"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = said["tokenizer.chat_template"]
    return fast
