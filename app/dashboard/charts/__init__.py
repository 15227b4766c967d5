"""Charts as inline SVG: pure functions from plain data to text, coloured by the classes of `static/charts.css` alone.

No style attribute, no script and no identifier stands in them, so they hold under a strict content security policy and
many of them can share a page.
"""

from app.dashboard.charts.change import change_chart
from app.dashboard.charts.gantt import gantt_chart
from app.dashboard.charts.heatmap import METRICS, heatmap_chart
from app.dashboard.charts.matrix import (
    AnswerSheet,
    Matrix,
    Series,
    Sweep,
    answer_sheet_chart,
    matrix_chart,
    sweep_chart,
)
from app.dashboard.charts.spectra import spectra_chart
from app.dashboard.charts.strengths import Strength, strengths_chart
from app.dashboard.charts.tradeoff import TradeOff, Trial, tradeoff_chart

__all__ = [
    "METRICS",
    "AnswerSheet",
    "Matrix",
    "Series",
    "Strength",
    "Sweep",
    "TradeOff",
    "Trial",
    "answer_sheet_chart",
    "change_chart",
    "gantt_chart",
    "heatmap_chart",
    "matrix_chart",
    "spectra_chart",
    "strengths_chart",
    "sweep_chart",
    "tradeoff_chart",
]
