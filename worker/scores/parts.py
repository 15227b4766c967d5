"""The matrices inside stored tensors: fused projections and stacked experts, taken apart by the model's config.

A tensor that holds several projections is scored projection by projection, and restored as the whole that it is.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from worker.scores.modules import FUSED, Place, place

CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
"""Models whose projections are stored transposed (inputs x outputs), as transformers' Conv1D."""
INTERLEAVED_MODELS = frozenset({"gpt_neox", "bloom"})
"""Models whose fused projection holds q, k and v of the first head, then those of the second, and so on."""

Cut = Callable[[Tensor], Tensor]
Piece = tuple[tuple[int, ...], Cut, str]
"""Shape, cut and region (see `Part`) of one projection in a fused matrix."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One matrix to score: all of the stored tensor, or what `cut` takes out of it."""

    name: str
    """the tensor's name, with `#q`, `#gate`, `#3` (an expert) behind it where it is one part of several"""
    tensor: str
    unit: str
    """what is selected together: the stored tensor, or all experts of a layer (`...experts.*...`)"""
    module_type: str
    layer: int | None
    expert: int | None
    shape: tuple[int, ...]
    cut: Cut
    region: str = ""
    """which entries `cut` takes, in words; the config decides that, so the name alone does not tell. "" for all"""


def parts(name: str, *, shape: Sequence[int], config: Mapping[str, Any]) -> list[Part]:
    """The matrices in a stored tensor. `config` is config.json's content.

    A fused tensor whose sizes do not agree with the config is one part of the fused type.
    """
    spot, text = place(name), config.get("text_config") or config
    if len(shape) == 3:
        inner = _of_matrix(name, spot=spot, shape=shape[1:], config=text)
        return [_of_expert(piece, expert) for expert in range(shape[0]) for piece in inner]
    return _of_matrix(name, spot=spot, shape=shape, config=text)


def _of_matrix(name: str, *, spot: Place, shape: Sequence[int], config: Mapping[str, Any]) -> list[Part]:
    cuts = _cuts(spot.module_type, shape=shape, config=config)
    if not cuts:
        return [_part(name, spot=spot, kind=spot.module_type, shape=shape, cut=_whole)]
    kinds = FUSED[spot.module_type]
    return [
        _part(f"{name}#{kind}", spot=spot, kind=kind, shape=size, cut=cut, tensor=name, region=region)
        for kind, (size, cut, region) in zip(kinds, cuts, strict=True)
    ]


def _of_expert(piece: Part, expert: int) -> Part:
    """One expert's share of a stacked tensor (experts x n x m), `piece` being that of its n x m matrix."""
    return Part(
        name=f"{piece.tensor}#{expert}{piece.name.removeprefix(piece.tensor)}", tensor=piece.tensor, unit=piece.tensor,
        module_type=piece.module_type, layer=piece.layer, expert=expert, shape=piece.shape,
        cut=lambda tensor: piece.cut(tensor[expert]), region=piece.region,
    )  # fmt: skip


def _part(
    name: str, *, spot: Place, kind: str, shape: Sequence[int], cut: Cut, tensor: str | None = None, region: str = ""
) -> Part:
    stored = tensor or name
    unit = re.sub(r"\.experts\.\d+\.", ".experts.*.", stored)
    return Part(
        name=name, tensor=stored, unit=unit, module_type=kind, layer=spot.layer, expert=spot.expert,
        shape=tuple(shape), cut=cut, region=region,
    )  # fmt: skip


def _cuts(kind: str, *, shape: Sequence[int], config: Mapping[str, Any]) -> list[Piece]:
    """Each projection in a fused matrix; empty for a plain one, or where the sizes do not fit."""
    if kind == "gate_up":
        if shape[1] != config.get("hidden_size", shape[1]):  # stored transposed: column by column, or in halves
            return []
        return _slices([shape[0] // 2] * 2, shape=shape, dim=0)
    if kind != "qkv":
        return []
    model = config.get("model_type")
    if model in CONV1D_MODELS:
        return _slices([shape[1] // 3] * 3, shape=shape, dim=1)
    heads = int(config.get("num_attention_heads") or 0)
    if model in INTERLEAVED_MODELS:
        return _interleaved(heads, shape=shape)
    return _slices(_grouped(heads, config=config), shape=shape, dim=0)


def _grouped(heads: int, *, config: Mapping[str, Any]) -> list[int]:
    """Rows of q, k and v with grouped key and value heads."""
    size = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // max(heads, 1))
    groups = int(config.get("num_key_value_heads") or heads)
    return [heads * size, groups * size, groups * size]


def _slices(sizes: list[int], *, shape: Sequence[int], dim: int) -> list[Piece]:
    if sum(sizes) != shape[dim] or 0 in sizes:
        return []
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    other = shape[1 - dim]
    shapes = [(size, other) if dim == 0 else (other, size) for size in sizes]
    return [
        (each, _narrow(dim, start=start, length=stop - start), f"dim {dim}, {start}:{stop}")
        for each, (start, stop) in zip(shapes, pairwise(edges), strict=True)
    ]


def _interleaved(heads: int, *, shape: Sequence[int]) -> list[Piece]:
    if not heads or shape[0] % (3 * heads):
        return []
    size = (shape[0] // 3, shape[1])
    return [(size, _every_third(heads, which=which, size=size), f"{which} of 3, {heads} heads") for which in range(3)]


def _whole(tensor: Tensor) -> Tensor:
    return tensor


def _narrow(dim: int, *, start: int, length: int) -> Cut:
    return lambda tensor: tensor.narrow(dim, start, length)


def _every_third(heads: int, *, which: int, size: tuple[int, ...]) -> Cut:
    """Of rows ordered (head, q/k/v, row of the head), those of one of the three, in the order of the heads."""
    return lambda tensor: tensor.view(heads, 3, math.prod(size) // heads)[:, which].reshape(size)
