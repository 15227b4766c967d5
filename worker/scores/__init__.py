"""The scores of weight matrices, their ranking, and the selection of what is restored."""

from worker.scores.change import Sums, load_passes, relative_change, squared_norms, sums, swci
from worker.scores.delta import DeltaShape, delta_shape, effective_rank
from worker.scores.modules import Place, place, wanted
from worker.scores.parts import Part, parts
from worker.scores.ranking import rank
from worker.scores.rows import Row, SpectrumPair, blank_row, make_row
from worker.scores.selection import Selection, choose
from worker.scores.snr import snr
from worker.scores.svdr import svdr

__all__ = [
    "DeltaShape",
    "Part",
    "Place",
    "Row",
    "Selection",
    "SpectrumPair",
    "Sums",
    "blank_row",
    "choose",
    "delta_shape",
    "effective_rank",
    "load_passes",
    "make_row",
    "parts",
    "place",
    "rank",
    "relative_change",
    "snr",
    "squared_norms",
    "sums",
    "svdr",
    "swci",
    "wanted",
]
