"""Singular values of weight matrices, the Marchenko-Pastur law, and the format in which spectra are cached."""

from worker.spectra.gram import SMALLEST_OF_PAIRS, has_pairs, load_pairs
from worker.spectra.mp import mp_median, noise_edge, noise_scale
from worker.spectra.record import ALGORITHM, SpectrumKey, from_record, pack, to_record, unpack
from worker.spectra.split import SMALLEST, Split, group_shape, split_count, split_values
from worker.spectra.values import Precision, flops, many_values, resolution, singular_values, uncertainty

__all__ = [
    "ALGORITHM",
    "SMALLEST",
    "SMALLEST_OF_PAIRS",
    "Precision",
    "SpectrumKey",
    "Split",
    "flops",
    "from_record",
    "group_shape",
    "has_pairs",
    "load_pairs",
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
