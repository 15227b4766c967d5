"""Heatmaps of scores: layers by modules, restored cells framed and dotted."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from worker.report.canvas import ACCENT, COLOURS, DPI, EMPTY, MUTED, short
from worker.report.schema import Grid, Heatmap, Module, Outside, Report
from worker.report.verdict import count, strength_of

CELL = 0.32
"""a cell's height in inches, and its width up to 25 layers"""
HEAD, FOOT, GAP = 1.05, 0.72, 0.68
WIDE_RANGE = 20.0
"""a quotient of values from which colours go by their logarithm"""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where things stand, in inches from the lower left corner."""

    width: float
    height: float
    left: float
    panel: tuple[float, float]
    """width and height of one panel"""

    def box(self, number: int) -> tuple[float, float, float, float]:
        """The place of panel `number`, the upmost being 0, in fractions of the figure."""
        bottom = self.height - HEAD - self.panel[1] - number * (self.panel[1] + GAP)
        return (
            self.left / self.width, bottom / self.height,
            self.panel[0] / self.width, self.panel[1] / self.height,
        )  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One heatmap: its values, its title and its colours' scale."""

    values: Values
    title: str
    norm: Normalize
    beyond: bool
    """whether some values lie above the scale's end"""


def score_figure(told: Report) -> Figure:
    """Two panels: the score that chose the tensors, and the relative change that shows where the fine-tune moved."""
    data = told.heatmap
    score, change = _array(data.score), _array(data.relative_change)
    top = _top(change)
    panels = (
        Panel(score, "score: rank within the group, 1 is first", Normalize(0.0, 1.0), beyond=False),
        Panel(change, "relative change ‖Wa - Wb‖ / ‖Wb‖", Normalize(0.0, top), beyond=bool((change > top).any())),
    )
    head = f"{told.selection.selected} of {told.selection.scored} tensors restored"
    head += f" · {count(told.selection.parameters)} parameters"
    return _figure(told, panels, head=head, under=strength_of(told.method.parameters))


def component_figure(told: Report) -> Figure:
    """Three panels: the scores that the ranking is made of. SNR and SWCI differ between module types by far."""
    data, chosen = told.heatmap, told.method.parameters
    panels = (
        _panel(data.snr, f"SNR: {chosen.get('snr', 'mp_median')}, {chosen.get('snr_reference', 'base')}"),
        _panel(data.swci, "SWCI: SNR · relative change"),
        _panel(data.svdr, f"SVDR: {chosen.get('svdr', 'drop')}"),
    )
    return _figure(told, panels, head="What the score is made of", under="an empty cell: not defined, or infinite")


def _figure(told: Report, panels: tuple[Panel, ...], *, head: str, under: str) -> Figure:
    data, place = told.heatmap, _layout(told.heatmap, panels=len(panels))
    figure = Figure(figsize=(place.width, place.height), dpi=DPI, facecolor="white")
    axes = [figure.add_axes(place.box(i)) for i in range(len(panels))]
    for each, panel in zip(axes, panels, strict=True):
        _draw(each, place, data, panel)
    _margin(axes[0], told)
    _words(figure, place, told, head=head, under=under)
    return figure


def _panel(grid: Grid, title: str) -> Panel:
    """A panel whose colours go by the logarithm where the values differ by far."""
    values = _array(grid)
    positive = values[np.isfinite(values) & (values > 0)]
    low, top = (float(np.quantile(positive, q)) for q in (0.03, 0.97)) if positive.size else (0.0, 1.0)
    if low and top / low > WIDE_RANGE:
        clipped = np.where(values <= 0, low, values)  # log colours have no place for zero
        norm: Normalize = LogNorm(low, top, clip=True)
        return Panel(clipped, f"{title} (log colours)", norm, beyond=bool((values > top).any()))
    return Panel(values, title, Normalize(0.0, top or 1.0), beyond=bool((values > top).any()))


def _layout(data: Heatmap, *, panels: int) -> Layout:
    """Cells are square up to 25 layers and narrower beyond, so that 80 layers still fit on a card."""
    cell = max(0.12, min(CELL, 8.0 / len(data.layers)))
    wide, high = max(1.6, cell * len(data.layers)), CELL * len(data.modules)
    left = 0.35 + 0.075 * max(len(short(name)) for name in data.modules)
    height = HEAD + FOOT + panels * high + (panels - 1) * GAP
    return Layout(width=max(7.2, left + wide + 2.2), height=height, left=left, panel=(wide, high))


def _array(grid: Grid) -> Values:
    return np.array([[np.nan if value is None else value for value in row] for row in grid], dtype=np.float64)


def _top(values: Values) -> float:
    """The end of a colour scale that a few outliers shall not stretch; they take its last colour."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 0.97)) or 1.0 if finite.size else 1.0


def _draw(axes: Axes, place: Layout, data: Heatmap, panel: Panel) -> None:
    axes.set_facecolor(EMPTY)
    mesh = axes.pcolormesh(
        np.arange(len(data.layers) + 1) - 0.5, np.arange(len(data.modules) + 1) - 0.5,
        np.ma.masked_invalid(panel.values), cmap=COLOURS, norm=panel.norm, edgecolors="white", linewidth=1.0,
    )  # fmt: skip
    _outline(axes, place, data)
    axes.set_title(panel.title, loc="left", fontsize=9, color=MUTED, pad=5)
    axes.set_yticks(range(len(data.modules)), labels=[short(name) for name in data.modules])
    axes.invert_yaxis()
    step = next((s for s in (1, 2, 5, 10, 20, 50) if len(data.layers) / s <= 24), 100)
    shown = [i for i, layer in enumerate(data.layers) if layer % step == 0]
    axes.set_xticks(shown, labels=[str(data.layers[i]) for i in shown])
    _scale(axes, place, mesh=mesh, panel=panel)


def _outline(axes: Axes, place: Layout, data: Heatmap) -> None:
    """Frame the restored cells, and dot them, so that colour is not the only sign."""
    inset_x = 0.018 * len(data.layers) / place.panel[0]  # the same distance to the cell's edge in both directions
    inset_y = 0.018 / CELL
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


def _scale(axes: Axes, place: Layout, *, mesh: Any, panel: Panel) -> None:
    """A slim colour bar to the right of a panel, its ends and middle in numbers."""
    bar = axes.inset_axes((1 + 1.35 / place.panel[0], 0.0, 0.1 / place.panel[0], 1.0))
    figure = axes.get_figure(root=True)
    assert figure is not None
    low, top = float(panel.norm.vmin or 0.0), float(panel.norm.vmax or 1.0)
    middle = math.sqrt(low * top) if isinstance(panel.norm, LogNorm) else (low + top) / 2
    ticks = [low, middle, top]
    colours = figure.colorbar(mesh, cax=bar, ticks=ticks)
    labels = [f"{value:.2g}" for value in ticks]
    signs = ("≤ " if isinstance(panel.norm, LogNorm) else "", "", "≥ " if panel.beyond else "")
    colours.ax.set_yticklabels([sign + label for sign, label in zip(signs, labels, strict=True)])
    colours.ax.minorticks_off()
    colours.ax.tick_params(labelsize=8, colors=MUTED)


def _margin(axes: Axes, told: Report) -> None:
    """Beside each row of the upper panel: how many of its tensors are restored, and their share of parameters."""
    by_type = {module.module_type: module for module in told.selection.modules}
    edge = len(told.heatmap.layers) - 0.5
    for y, name in enumerate(told.heatmap.modules):
        axes.text(edge, y, "  " + _share(by_type[name]), va="center", ha="left", fontsize=8.5)


def _share(module: Module) -> str:
    return f"{module.selected} of {module.scored} · {module.share:.0%}"


def _words(figure: Figure, place: Layout, told: Report, *, head: str, under: str) -> None:
    left, foot = place.left / place.width, 0.26 / place.height
    figure.text(left, 1 - 0.16 / place.height, head, fontsize=12, fontweight="bold", va="top")
    figure.text(left, 1 - 0.43 / place.height, under, color=MUTED, va="top")
    figure.text(left, foot, "columns: layers", color=MUTED, va="center")
    figure.text(left + 1.65 / place.width, foot, _apart(told.heatmap.outside), color=MUTED, va="center", ha="left")
    key = Patch(facecolor="white", edgecolor=ACCENT, linewidth=1.3, label="restored")
    second = place.box(1)
    corner = ((place.left + place.panel[0] + 0.02) / place.width, second[1] + second[3])
    figure.legend(
        handles=[key], loc="upper left", bbox_to_anchor=corner, frameon=False, handlelength=1.0, handleheight=1.0,
        borderpad=0.2,
    )  # fmt: skip


def _apart(outside: tuple[Outside, ...]) -> str:
    """The tensors that stand in no layer, in words."""
    said = [f"{short(o.module_type)} {'restored' if o.selected else 'not restored'}" for o in outside[:3]]
    more = f", {len(outside) - 3} more" if len(outside) > 3 else ""
    return f"outside of the layers: {', '.join(said)}{more}" if said else ""
