"""The format in which spectra are cached and sent."""

import base64
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALGORITHM = "gram-5"
"""Raised whenever the numbers change (an estimate's number of column groups too): a spectrum of another algorithm is
never used."""


@dataclass(frozen=True, kw_only=True)
class SpectrumKey:
    """What a cached spectrum belongs to; two equal keys mean the same numbers."""

    digest: str
    """content digest of the file that holds the tensor, `sha256:<hex>` or `git:<hex>`"""
    tensor: str
    algorithm: str = ALGORITHM
    precision: str = "exact"
    device_class: str = "cpu"
    """what computed it, as far as its last digits depend on that (see `worker.processor.arithmetic`)"""


def pack(values: Tensor) -> bytes:
    """The values as zlib-compressed little-endian fp64, to the bit."""
    return zlib.compress(values.to(torch.float64).numpy().astype("<f8").tobytes(), level=6)


def unpack(data: bytes, *, count: int) -> Tensor:
    """The fp64 values that `pack` was given; raises `ValueError` where `data` is not `count` finite, falling values."""
    unzipper = zlib.decompressobj()
    try:
        raw = unzipper.decompress(data, 8 * count + 1)  # bounded: a hostile record cannot fill the memory
        numbers = np.frombuffer(raw, dtype="<f8")
    except (zlib.error, ValueError) as error:
        raise ValueError("the spectrum's data are damaged") from error
    falling = bool((numbers[1:] <= numbers[:-1]).all())
    if len(numbers) != count or not (falling and np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ValueError("the spectrum's data are damaged")
    return torch.from_numpy(numbers.astype(np.float64))


def to_record(key: SpectrumKey, values: Tensor) -> dict[str, Any]:
    """A JSON-able record: the key's fields, `count`, and `data` in base64."""
    return {**asdict(key), "count": values.numel(), "data": base64.b64encode(pack(values)).decode()}


def from_record(record: dict[str, Any]) -> tuple[SpectrumKey, Tensor]:
    """The inverse of `to_record`; raises `ValueError` for a damaged or foreign record."""
    try:
        key = SpectrumKey(**{name: str(record[name]) for name in SpectrumKey.__dataclass_fields__})
        return key, unpack(base64.b64decode(record["data"], validate=True), count=int(record["count"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("the spectrum's record is damaged or not complete") from error
