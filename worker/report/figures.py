"""The pictures of a report: which there are, where they stand, and what they show in words."""

from pathlib import Path
from typing import Any

from worker.report.canvas import save, stripped, style
from worker.report.grids import component_figure, score_figure
from worker.report.plots import change_figure, spectra_figure
from worker.report.schema import Report
from worker.report.tradeoff import tradeoff_figure, tradeoff_words

TRADEOFF = "figures/tradeoff.png"
SCORES = "figures/scores.png"
COMPONENTS = "figures/components.png"
CHANGE = "figures/change.png"
SPECTRA = "figures/spectra.png"


def draw(report: dict[str, Any], *, folder: Path) -> dict[str, str]:
    """Write every picture that the report has data for into `folder`; what each shows, in words, by its path.

    Fonts, sizes and palette are fixed and there is no metadata, so equal reports give equal files.
    """
    told = Report.model_validate(report)
    makers = {
        TRADEOFF: tradeoff_figure, SCORES: score_figure, COMPONENTS: component_figure, CHANGE: change_figure,
        SPECTRA: spectra_figure,
    }  # fmt: skip
    words = {path: text for path, text in _words(told).items() if text}
    with style():
        for path in words:
            save(makers[path](told), folder / path)
    return words


def _words(told: Report) -> dict[str, str]:
    """What each picture shows, for those who do not see it; empty where there is nothing to draw."""
    rows = ", ".join(f"{m.module_type} {m.selected} of {m.scored}" for m in told.selection.modules)
    bins, grid = told.distribution, bool(told.heatmap.layers)
    middle = f"; half of the changed tensors moved less than {bins.median:.2g}" if bins.median else ""
    shown = ", ".join(stripped(one.name) for one in told.spectra)
    return {
        TRADEOFF: tradeoff_words(told),
        SCORES: f"Heatmap of scores by layer and module; restored tensors are framed: {rows}" if grid else "",
        COMPONENTS: "Heatmaps of SNR, SWCI and SVDR by layer and module, restored tensors framed" if grid else "",
        CHANGE: f"Histogram of the tensors' relative change, restored ones apart{middle}" if bins.edges else "",
        SPECTRA: f"Singular values of base and adapted model with the noise edge: {shown}" if shown else "",
    }
