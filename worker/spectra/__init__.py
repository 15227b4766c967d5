"""Singular values of weight matrices, the Marchenko-Pastur law, and the format in which spectra are cached."""

from worker.spectra.mp import mp_median, noise_edge, noise_scale
from worker.spectra.record import ALGORITHM, SpectrumKey, from_record, pack, to_record, unpack
from worker.spectra.values import flops, resolution, singular_values

__all__ = [
    "ALGORITHM",
    "SpectrumKey",
    "flops",
    "from_record",
    "mp_median",
    "noise_edge",
    "noise_scale",
    "pack",
    "resolution",
    "singular_values",
    "to_record",
    "unpack",
]
