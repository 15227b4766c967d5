"""The heatmap of scores as a PNG: the same report gives the same bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from worker.report.schema import Heatmap, Module, Outside, Report
from worker.report.verdict import count, strength_of

SCORES = "figures/scores.png"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.linewidth": 0,
    "text.color": "#1f2328",
    "axes.labelcolor": "#1f2328",
    "xtick.color": "#57606a",
    "ytick.color": "#1f2328",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
COLOURS = "Blues"
ACCENT = "#d1242f"
MUTED = "#57606a"
EMPTY = "#f0f2f4"
DPI = 140
PALETTE = 200
"""colours kept in the file: enough for two scales and smooth type, half of the bytes"""

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where things stand, in inches from the lower left corner."""

    width: float
    height: float
    left: float
    panel: tuple[float, float]
    """width and height of one of the two panels"""

    def box(self, bottom: float) -> tuple[float, float, float, float]:
        """A panel's place in fractions of the figure."""
        return (
            self.left / self.width, bottom / self.height,
            self.panel[0] / self.width, self.panel[1] / self.height,
        )  # fmt: skip


def draw_scores(report: dict[str, Any], *, path: Path) -> bool:
    """Write the heatmap of scores, module by layer, restored cells framed and dotted; False where there is none.

    Two panels share their layers: the score that chose the tensors, and the relative change ‖Δ‖/‖W_b‖ that shows
    where the fine-tune moved the model. Fonts, sizes and palette are fixed and there is no metadata, so equal reports
    give equal files.
    """
    told = Report.model_validate(report)
    if not told.heatmap.layers:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        canvas: Any = FigureCanvasAgg(_figure(told))  # its methods have no types
        canvas.draw()
        size = canvas.get_width_height(physical=True)
        picture = Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(colors=PALETTE, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
    return True


def describe(report: dict[str, Any]) -> str:
    """The picture in words, for those who do not see it."""
    told = Report.model_validate(report)
    rows = ", ".join(f"{m.module_type} {m.selected} of {m.scored}" for m in told.selection.modules)
    return f"Heatmap of scores by layer and module; restored tensors are framed: {rows}"


def _figure(told: Report) -> Figure:
    data = told.heatmap
    place = _layout(data)
    figure = Figure(figsize=(place.width, place.height), dpi=DPI, facecolor="white")
    upper = figure.add_axes(place.box(place.height - 1.05 - place.panel[1]))
    lower = figure.add_axes(place.box(0.72))
    score, change = _array(data.score), _array(data.relative_change)
    _panel(upper, place, data, values=score, title="score: rank within the group, 1 is first", top=1.0)
    _panel(lower, place, data, values=change, title="relative change ‖Wa - Wb‖ / ‖Wb‖", top=_top(change))
    _margin(upper, told)
    _words(figure, place, told)
    return figure


def _layout(data: Heatmap) -> Layout:
    """Cells are square up to 25 layers and narrower beyond, so that 80 layers still fit on a card."""
    cell = max(0.12, min(0.32, 8.0 / len(data.layers)))
    wide, high = max(1.6, cell * len(data.layers)), 0.32 * len(data.modules)
    left = 0.35 + 0.075 * max(len(_short(name)) for name in data.modules)
    return Layout(width=max(6.0, left + wide + 2.2), height=2 * high + 2.45, left=left, panel=(wide, high))


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _array(grid: tuple[tuple[float | None, ...], ...]) -> Grid:
    return np.array([[np.nan if value is None else value for value in row] for row in grid], dtype=np.float64)


def _top(values: Grid) -> float:
    """The end of a colour scale that a few outliers shall not stretch; they take its last colour."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 0.97)) or 1.0 if finite.size else 1.0


def _panel(axes: Axes, place: Layout, data: Heatmap, *, values: Grid, title: str, top: float) -> None:
    axes.set_facecolor(EMPTY)
    mesh = axes.pcolormesh(
        np.arange(len(data.layers) + 1) - 0.5, np.arange(len(data.modules) + 1) - 0.5, np.ma.masked_invalid(values),
        cmap=COLOURS, norm=Normalize(0.0, top), edgecolors="white", linewidth=1.0,
    )  # fmt: skip
    _outline(axes, place, data)
    axes.set_title(title, loc="left", fontsize=9, color=MUTED, pad=5)
    axes.set_yticks(range(len(data.modules)), labels=[_short(name) for name in data.modules])
    axes.invert_yaxis()
    step = next((s for s in (1, 2, 5, 10, 20, 50) if len(data.layers) / s <= 24), 100)
    shown = [i for i, layer in enumerate(data.layers) if layer % step == 0]
    axes.set_xticks(shown, labels=[str(data.layers[i]) for i in shown])
    _scale(axes, place, mesh=mesh, top=top, beyond=bool((values > top).any()))


def _outline(axes: Axes, place: Layout, data: Heatmap) -> None:
    """Frame the restored cells, and dot them, so that colour is not the only sign."""
    inset_x = 0.018 * len(data.layers) / place.panel[0]  # the same distance to the cell's edge in both directions
    inset_y = 0.018 / 0.32
    for y, row in enumerate(data.restored):
        for x, share in enumerate(row):
            if share:
                _frame(axes, x, y, inset=(inset_x, inset_y), whole=share == 1.0)


def _frame(axes: Axes, x: int, y: int, *, inset: tuple[float, float], whole: bool) -> None:
    corner, width, height = (x - 0.5 + inset[0], y - 0.5 + inset[1]), 1 - 2 * inset[0], 1 - 2 * inset[1]
    style = "-" if whole else ":"  # dotted: only some of the cell's tensors
    frame = Rectangle(corner, width, height, fill=False, edgecolor=ACCENT, linewidth=1.3, linestyle=style)
    axes.add_patch(frame)
    axes.plot(x, y, "o", markersize=2.6, color="white", markeredgecolor=ACCENT, markeredgewidth=0.8)


def _scale(axes: Axes, place: Layout, *, mesh: Any, top: float, beyond: bool) -> None:
    """A slim colour bar to the right of a panel, its ends and middle in numbers."""
    bar = axes.inset_axes((1 + 1.35 / place.panel[0], 0.0, 0.1 / place.panel[0], 1.0))
    figure = axes.get_figure(root=True)
    assert figure is not None
    ticks = [0.0, top / 2, top]
    colours = figure.colorbar(mesh, cax=bar, ticks=ticks)
    labels = [f"{value:.2g}" for value in ticks]
    colours.ax.set_yticklabels([*labels[:-1], ("≥ " if beyond else "") + labels[-1]])
    colours.ax.tick_params(labelsize=8, colors=MUTED)


def _margin(axes: Axes, told: Report) -> None:
    """Beside each row of the upper panel: how many of its tensors are restored, and their share of parameters."""
    by_type = {module.module_type: module for module in told.selection.modules}
    edge = len(told.heatmap.layers) - 0.5
    for y, name in enumerate(told.heatmap.modules):
        axes.text(edge, y, "  " + _share(by_type[name]), va="center", ha="left", fontsize=8.5)


def _share(module: Module) -> str:
    return f"{module.selected} of {module.scored} · {module.share:.0%}"


def _words(figure: Figure, place: Layout, told: Report) -> None:
    chosen, left, under = told.selection, place.left / place.width, 0.26 / place.height
    head = f"{chosen.selected} of {chosen.scored} tensors restored · {count(chosen.parameters)} parameters"
    strength = strength_of(told.method.parameters.get("t"))
    figure.text(left, 1 - 0.16 / place.height, head, fontsize=12, fontweight="bold", va="top")
    figure.text(left, 1 - 0.43 / place.height, strength, color=MUTED, va="top")
    figure.text(left, under, "columns: layers", color=MUTED, va="center")
    figure.text(left + 1.65 / place.width, under, _apart(told.heatmap.outside), color=MUTED, va="center", ha="left")
    key = Patch(facecolor="white", edgecolor=ACCENT, linewidth=1.3, label="restored")
    corner = ((place.left + place.panel[0] + 0.02) / place.width, place.box(0.72)[1] + place.box(0.72)[3])
    figure.legend(
        handles=[key], loc="upper left", bbox_to_anchor=corner, frameon=False, handlelength=1.0, handleheight=1.0,
        borderpad=0.2,
    )  # fmt: skip


def _apart(outside: tuple[Outside, ...]) -> str:
    """The tensors that stand in no layer, in words."""
    said = [f"{_short(o.module_type)} {'restored' if o.selected else 'not restored'}" for o in outside[:3]]
    more = f", {len(outside) - 3} more" if len(outside) > 3 else ""
    return f"outside of the layers: {', '.join(said)}{more}" if said else ""
