"""The histogram of relative change, and spectra with their noise edge."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from worker.report.canvas import ACCENT, ADAPTED, BASE, DPI, GRID, MUTED, short, stripped
from worker.report.schema import Report, Spectrum

COLUMNS = 3
PANEL = (3.0, 2.35)
"""width and height of one spectrum's panel with its words, in inches"""
FLOOR = 1e-3
"""of the largest singular value: what lies below is next to nothing"""


def change_figure(told: Report) -> Figure:
    """How many tensors moved how far; restored ones stand on top of the others, hatched."""
    data = told.distribution
    figure = Figure(figsize=(7.2, 3.3), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.085, 0.2, 0.885, 0.56))
    edges, kept, restored = (np.array(each, dtype=np.float64) for each in (data.edges, data.kept, data.restored))
    widths = np.diff(edges)
    axes.bar(edges[:-1], kept, widths, align="edge", color="#9ec5f0", edgecolor="white", label="left as adapted")
    some = restored > 0
    axes.bar(
        edges[:-1][some], restored[some], widths[some], bottom=kept[some], align="edge", color="white",
        edgecolor=ACCENT, hatch="////", linewidth=0.8, label="restored",
    )  # fmt: skip
    axes.set_xscale("log")
    _plain(axes)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.15 * float((kept + restored).max()))
    _percent_ticks(axes, low=float(edges[0]), high=float(edges[-1]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_xlabel("relative change ‖Wa - Wb‖ / ‖Wb‖, log scale")
    axes.set_ylabel("tensors")
    _median(axes, data.median)
    figure.text(0.085, 0.95, "How far the tensors moved", fontsize=12, fontweight="bold", va="top")
    figure.text(0.085, 0.87, _beside(told), color=MUTED, va="top")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0.0)
    return figure


def spectra_figure(told: Report) -> Figure:
    """One panel for each shown tensor: singular values above, their change in percent of the base's below."""
    rows, columns = math.ceil(len(told.spectra) / COLUMNS), min(COLUMNS, len(told.spectra))
    width, height = max(6.2, 0.2 + columns * (PANEL[0] + 0.35)), 0.8 + rows * (PANEL[1] + 0.75)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    for number, one in enumerate(told.spectra):
        left = 0.7 + (number % COLUMNS) * (PANEL[0] + 0.35)
        top = height - 1.0 - (number // COLUMNS) * (PANEL[1] + 0.75)
        _spectrum(figure, one, left=left / width, top=top / height, size=(2.4 / width, PANEL[1] / height))
    figure.text(0.25 / width, 1 - 0.16 / height, "Singular values", fontsize=12, fontweight="bold", va="top")
    figure.text(
        0.25 / width, 1 - 0.43 / height, "above: values by rank, largest first; below: change against the base",
        color=MUTED, va="top",
    )  # fmt: skip
    every = [axes.get_legend_handles_labels() for axes in figure.axes]
    known = {label: handle for handles, labels in every for handle, label in zip(handles, labels, strict=True)}
    figure.legend(
        known.values(), known.keys(), loc="upper right", bbox_to_anchor=(1 - 0.15 / width, 1 - 0.08 / height),
        frameon=False, ncols=2, handlelength=2.2, borderpad=0.0,
    )  # fmt: skip
    return figure


def _spectrum(figure: Figure, one: Spectrum, *, left: float, top: float, size: tuple[float, float]) -> None:
    upper = figure.add_axes((left, top - 0.62 * size[1], size[0], 0.62 * size[1]))
    lower = figure.add_axes((left, top - size[1], size[0], 0.28 * size[1]), sharex=upper)
    lines = [(one.base, BASE, "-", "base"), (one.adapted, ADAPTED, "--", "adapted")]
    lines += [(one.merged, ACCENT, ":", "merged")] if one.merged else []
    for values, colour, dashes, name in lines:
        shown = np.array([value if value > 0 else np.nan for value in values])
        upper.plot(one.ranks, shown, dashes, color=colour, linewidth=1.4, label=name)
        if name != "base":
            lower.plot(one.ranks, _change(one, values), dashes, color=colour, linewidth=1.2)
    _limit(lower, one, values=[values for values, _, _, name in lines if name != "base"])
    upper.set_yscale("log")
    if one.edge:
        upper.axhline(one.edge, color=MUTED, linewidth=0.9, linestyle="-.", label="noise edge (base)")
    for axes in (upper, lower):
        _plain(axes)
    upper.tick_params(labelbottom=False, labelsize=7.5)
    lower.tick_params(labelsize=7.5)
    lower.axhline(0, color=MUTED, linewidth=0.6)
    _sparse_log(upper, one)
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g} %" if value else "0"))
    lower.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    lower.set_xlabel(f"rank, of {one.count}", fontsize=8, labelpad=2)
    mark = " ● restored" if one.selected else ""
    upper.set_title(short(stripped(one.name), length=34), loc="left", fontsize=8.5, pad=13)
    estimated = "estimated, " if one.precision == "fast" else ""
    told = f"{estimated}{' x '.join(map(str, one.shape))}{mark}"
    upper.text(0, 1.03, told, transform=upper.transAxes, fontsize=7.5, color=ACCENT if one.selected else MUTED)


def _change(one: Spectrum, values: tuple[float, ...]) -> np.ndarray:
    """In percent of the base's; not told where that is next to nothing."""
    base = np.array(one.base)
    floor = 1e-4 * max(one.base, default=0.0)
    change: np.ndarray = 100 * (np.array(values) - base) / np.where(base > floor, base, np.nan)
    return change


def _limit(axes: Axes, one: Spectrum, *, values: list[tuple[float, ...]]) -> None:
    """The change's axis shows all but the smallest few values, which jump because they are near zero."""
    last = max(1, int(0.97 * len(one.ranks)))
    known = np.concatenate([_change(one, each)[:last] for each in values])
    known = known[np.isfinite(known)]
    low, high = (float(min(known.min(), 0)), float(max(known.max(), 0))) if known.size else (0.0, 0.0)
    room = 0.1 * (high - low) or 0.1
    axes.set_ylim(low - room, high + room)


def _sparse_log(axes: Axes, one: Spectrum) -> None:
    """A few round labels on the axis of values; what is below a thousandth of the largest is not drawn."""
    drawn = [value for value in (*one.base, *one.adapted, one.edge or 0.0) if value > 0]
    low, high = min(drawn, default=0.1), max(drawn, default=1.0)
    low = max(low, high * FLOOR)
    axes.set_ylim(low * 0.9, high * 1.15)
    axes.yaxis.set_minor_locator(NullLocator())
    steps = [m * 10.0**e for e in range(-12, 9) for m in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    ticks = ticks[:: math.ceil(len(ticks) / 4)] if len(ticks) > 1 else [low, high]
    axes.set_yticks(ticks, labels=[f"{value:.2g}" for value in ticks])


def _percent_ticks(axes: Axes, *, low: float, high: float) -> None:
    """Round percentages on the axis of relative change."""
    steps = [m * 10.0**e for e in range(-9, 4) for m in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) > 9:
        ticks = [10.0**e for e in range(-9, 4) if low <= 10.0**e <= high]
    ticks = ticks if len(ticks) > 1 else [low, high]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, labels=[f"{100 * tick:.3g} %" for tick in ticks])


def _median(axes: Axes, value: float | None) -> None:
    if value:
        axes.axvline(value, color=MUTED, linewidth=1.0, linestyle="-.")
        axes.annotate(
            f" median {100 * value:.2g} %", (value, 1.0), xycoords=("data", "axes fraction"), color=MUTED,
            fontsize=8, va="top", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
        )  # fmt: skip


def _beside(told: Report) -> str:
    data, scored = told.distribution, told.selection.scored
    said = [f"{scored} scored tensors"]
    said += [f"{data.unchanged} the same in both models"] if data.unchanged else []
    said += [f"{data.endless} of a zero base, not drawn"] if data.endless else []
    return ", ".join(said)


def _plain(axes: Axes) -> None:
    """Light lines behind the data, one axis line below."""
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.spines["bottom"].set_color(MUTED)
