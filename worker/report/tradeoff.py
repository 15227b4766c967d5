"""The trade-off as a picture: retention against gain kept, the chosen point ringed, controls beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from worker.evaluation.bootstrap import Estimate
from worker.report.canvas import ACCENT, ADAPTED, BASE, DPI, GRID, MUTED, short
from worker.report.schema import Point, Report

MARKS = {"base": ("s", BASE), "adapted": ("D", ADAPTED), "candidate": ("o", MUTED), "control": ("^", BASE),
         "chosen": ("o", ACCENT)}  # fmt: skip
"""the marker and colour of each kind; the form alone tells them apart"""
NAMES = {"candidate": "tried", "control": "control", "chosen": "chosen", "base": "base", "adapted": "adapted"}
MOST_LABELS = 12


def drawable(told: Report) -> tuple[Point, ...]:
    """The points on held-out text that have both figures; without one beside base and adapted there is no picture."""
    every = told.evaluation.points if told.evaluation else ()
    known = [point for point in every if point.on == "held_out" and _defined(point)]
    return tuple(known) if any(point.kind not in ("base", "adapted") for point in known) else ()


def tradeoff_figure(told: Report) -> Figure:
    """Each model as a point with its 95 % intervals; up and to the right is better."""
    points = drawable(told)
    figure = Figure(figsize=(7.2, 4.4), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.65))
    _uniform(axes, points)
    ends = _dominated(points)
    for kind, name in NAMES.items():  # what is tried first, so that nothing hides the chosen one
        for number, point in enumerate(point for point in points if point.kind == kind):
            _draw(axes, point, faded=point in ends and kind != "chosen", label=name if number == 0 else None)
    _label(axes, points)
    axes.set_xlabel("general ability: retention")
    axes.set_ylabel("domain: gain kept")
    _plain(axes)
    figure.text(0.1, 0.96, "What it costs to keep what was there", fontsize=12, fontweight="bold", va="top")
    figure.text(0.1, 0.9, "bars: 95 % intervals; pale: another point is better in both", color=MUTED, va="top")
    axes.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=6, borderpad=0.2, handletextpad=0.3,
        columnspacing=1.2, fontsize=8,
    )  # fmt: skip
    return figure


def tradeoff_words(told: Report) -> str:
    """The same for those who do not see it; empty where there is nothing to draw."""
    points = drawable(told)
    if not points:
        return ""
    chosen = next((point for point in points if point.kind == "chosen"), None)
    said = f"Retention against gain kept of {len(points)} models"
    if chosen is None:
        return said
    return f"{said}; the chosen one has {chosen.retention.value:.2f} and {chosen.gain_kept.value:.2f}"


def _defined(point: Point) -> bool:
    return point.retention.value is not None and point.gain_kept.value is not None


def _at(point: Point) -> tuple[float, float]:
    assert point.retention.value is not None
    assert point.gain_kept.value is not None
    return point.retention.value, point.gain_kept.value


def _dominated(points: Sequence[Point]) -> list[Point]:
    """Points than which another has more of one figure and no less of the other."""
    places = [_at(point) for point in points]
    return [
        point for point, (x, y) in zip(points, places, strict=True)
        if any(a >= x and b >= y and (a, b) != (x, y) for a, b in places)
    ]  # fmt: skip


def _uniform(axes: Axes, points: Sequence[Point]) -> None:
    """Uniform interpolation is one path from base to adapted: drawn as a line, every strength on it."""
    path = sorted(_at(point) for point in points if point.name == "uniform" or point.kind in ("base", "adapted"))
    if any(point.name == "uniform" for point in points):
        xs, ys = np.array(path).T
        axes.plot(xs, ys, color=GRID, linewidth=2.0, zorder=1, label="uniform interpolation")


def _draw(axes: Axes, point: Point, *, faded: bool, label: str | None) -> None:
    marker, colour = MARKS[point.kind]
    x, y = _at(point)
    alpha = 0.35 if faded else 1.0
    axes.errorbar(
        [x], [y], xerr=_bars(point.retention), yerr=_bars(point.gain_kept), fmt="none", ecolor=colour, elinewidth=0.8,
        alpha=0.5 * alpha, zorder=2,
    )  # fmt: skip
    face = "white" if point.kind == "candidate" else colour
    axes.plot([x], [y], marker, markersize=6, color=colour, markerfacecolor=face, alpha=alpha, zorder=3, label=label)
    if point.kind == "chosen":
        axes.plot([x], [y], "o", markersize=13, color=ACCENT, markerfacecolor="none", markeredgewidth=1.6, zorder=4)


def _bars(estimate: Estimate) -> Any:
    """Lengths below and above the value, as matplotlib takes them."""
    value = estimate.value or 0.0
    low = value if estimate.low is None else estimate.low
    high = value if estimate.high is None else estimate.high
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside the points that a reader asks about; candidates are many and stay without.

    Controls have theirs on the left, above and below in turn, all others on the right: fewer lie on top of each other.
    """
    named = sorted((point for point in points if point.kind != "candidate"), key=_at)[:MOST_LABELS]
    for number, point in enumerate(named):
        left, above = point.kind == "control", point.kind != "chosen" and number % 2 == 0
        axes.annotate(
            short(point.label, length=28), _at(point), xytext=(-6 if left else 9, 6 if above else -12),
            textcoords="offset points", ha="right" if left else "left", fontsize=7.5, color=MARKS[point.kind][1],
            fontweight="bold" if point.kind == "chosen" else "normal",
        )  # fmt: skip


def _plain(axes: Axes) -> None:
    """Light lines behind the points, percent on both axes, room at the edges for names."""
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
