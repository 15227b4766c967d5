"""Singular values of weight matrices, the Marchenko-Pastur law, and the format in which spectra are cached."""

from worker.spectra.mp import mp_median, noise_edge, noise_scale
from worker.spectra.record import ALGORITHM, SpectrumKey, from_record, pack, to_record, unpack
from worker.spectra.split import SMALLEST, Split, group_shape, split_count, split_values
from worker.spectra.values import Precision, flops, many_values, resolution, singular_values, uncertainty

__all__ = [
    "ALGORITHM",
    "SMALLEST",
    "Precision",
    "SpectrumKey",
    "Split",
    "flops",
    "from_record",
    "group_shape",
    "many_values",
    "mp_median",
    "noise_edge",
    "noise_scale",
    "pack",
    "resolution",
    "singular_values",
    "split_count",
    "split_values",
    "to_record",
    "uncertainty",
    "unpack",
]
