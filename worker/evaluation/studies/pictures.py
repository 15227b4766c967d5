"""The pictures of a study: heatmaps of Gain and OG, sweeps, an answer sheet, similarity against gain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from worker.evaluation.studies.schema import CellRow, Outcome, Study
from worker.report.canvas import ACCENT, ADAPTED, BASE, DPI, EMPTY, GRID, MUTED, save, short, style

LINES = (BASE, ADAPTED, "#1a7f37", "#8250df", ACCENT, "#9a6700", "#57606a", "#0550ae")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
ITEMS = 200
"""items that the answer sheet shows"""
COLUMNS = 3


def draw(report: Study, *, folder: Path) -> dict[str, str]:
    """Write every picture that there is data for; what each shows, in words, by its name.

    Equal reports give equal bytes.
    """
    makers = {
        "gain": lambda: heatmap(report, figure="gain"), "og": lambda: heatmap(report, figure="og"),
        "sweep": lambda: sweep(report), "answers": lambda: answer_sheet(report), "similarity": lambda: scatter(report),
    }
    words = _words(report)
    with style():
        for name in words:
            save(makers[name](), folder / f"{name}.png")
    return words


def heatmap(report: Study, *, figure: str) -> Figure:
    """Sets of experts by methods, at the chosen settings; blue is more than the constituents, red less."""
    rows = list(dict.fromkeys((one.stage, one.experts) for one in report.outcomes))
    methods = list(dict.fromkeys(one.method for one in report.outcomes))
    values = np.full((len(rows), len(methods)), np.nan)
    for one in report.outcomes:
        value = getattr(one.macro[report.main_kind], figure).value
        values[rows.index((one.stage, one.experts)), methods.index(one.method)] = np.nan if value is None else value
    size = (3.4 + 1.15 * len(methods), 1.25 + 0.42 * len(rows))
    picture = Figure(figsize=size, dpi=DPI, facecolor="white")
    axes = picture.add_axes((3.0 / size[0], 0.55 / size[1], 1.15 * len(methods) / size[0], 0.42 * len(rows) / size[1]))
    reach = float(np.nanmax(np.abs(values))) or 1.0
    axes.imshow(values, cmap="RdBu", norm=TwoSlopeNorm(0.0, -reach, reach), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value) > 0.6 * reach
        text = "-" if np.isnan(value) else f"{value:+.3f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "#1f2328")
    axes.set_xticks(range(len(methods)), labels=[short(name, length=16) for name in methods])
    axes.set_yticks(range(len(rows)), labels=[f"{stage}: {_who(experts)}" for stage, experts in rows])
    title = {"gain": "Macro-Gain: merged - mean of constituents", "og": "Macro-OG: merged - best constituent"}[figure]
    _title(picture, title, f"{_unit(report)}, tasks reported on, settings as calibration chose them", size=size)
    return picture


def sweep(report: Study) -> Figure:
    """Of each method, Macro-Gain over its first grid parameter, the others as chosen, seeds averaged."""
    methods = [one for one in dict.fromkeys(row.method for row in report.cells) if _axis(report.cells, one)]
    rows, columns = -(-len(methods) // COLUMNS), min(COLUMNS, len(methods))
    sets = len({(one.stage, one.experts) for one in report.outcomes})
    size = (0.7 + 3.3 * max(columns, 2), 1.0 + 2.7 * rows + 0.17 * -(-sets // 2))
    picture = Figure(figsize=size, dpi=DPI, facecolor="white")
    for number, method in enumerate(methods):
        left, top = 0.75 + 3.3 * (number % COLUMNS), 0.85 + 2.7 * (number // COLUMNS)
        box = (left / size[0], 1 - (top + 1.9) / size[1], 2.6 / size[0], 1.9 / size[1])
        _sweep(picture.add_axes(box), report, method)
    known = [axes.get_legend_handles_labels() for axes in picture.axes]
    handles = {label: line for lines, labels in known for line, label in zip(lines, labels, strict=True)}
    picture.legend(
        handles.values(), handles.keys(), loc="lower left", frameon=False, ncols=2, fontsize=7.5, borderpad=0.2
    )
    _title(picture, "Sensitivity to hyper-parameters", f"Macro-Gain, {_unit(report)}; ringed: chosen", size=size)
    return picture


def answer_sheet(report: Study) -> Figure:
    """Items (columns) that each model (rows) has right, on the task where most emerged; emerged ones are red."""
    best, task = _shown_answers(report)
    sheets = report.answers[task]
    names = [*best.constituents, best.key]
    bits = np.array([[int(bit) for bit in sheets[name]] for name in names])
    emerged = (bits[-1] == 1) & ~bits[:-1].any(axis=0)
    order = np.lexsort((*bits[::-1], ~emerged))[:ITEMS]
    shown = bits[:, order].copy()
    shown[-1][emerged[order]] = 2
    size = (8.0, 1.35 + 0.34 * len(names))
    picture = Figure(figsize=size, dpi=DPI, facecolor="white")
    axes = picture.add_axes((2.3 / 8, 0.4 / size[1], 5.5 / 8, 0.34 * len(names) / size[1]))
    colours = ListedColormap([EMPTY, "#2da44e", ACCENT])
    axes.imshow(shown, cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
    labels = [*(short(name, length=30) for name in best.constituents), f"merged, {best.method}"]
    axes.set_yticks(range(len(names)), labels=labels)
    axes.set_xlabel(f"{len(order)} of {bits.shape[1]} items")
    lost = int(((bits[-1] == 0) & bits[:-1].any(axis=0)).sum())
    told = f"{task}: {int(emerged.sum())} emerged (red: right where all others are wrong), {lost} lost"
    _title(picture, "Answer sheet", told, size=size)
    return picture


def scatter(report: Study) -> Figure:
    """Mean cosine of the task vectors against Macro-Gain, merges of two or more experts."""
    size = (5.6, 3.9)
    picture = Figure(figsize=size, dpi=DPI, facecolor="white")
    axes = picture.add_axes((0.14, 0.15, 0.82, 0.62))
    some = [one for one in report.correlations if one.similarity == "cosine" and one.against == "gain"]
    for number, one in enumerate(each for each in some if each.method != "all"):
        xs, ys = zip(*one.points, strict=True) if one.points else ((), ())
        axes.scatter(xs, ys, s=26, marker=MARKS[number % 8], color=LINES[number % 8], label=one.method, zorder=3)
    _plain(axes)
    axes.set_xlabel("cosine of task vectors (mean over pairs)")
    axes.set_ylabel("Macro-Gain")
    axes.legend(frameon=False, fontsize=7.5, loc="best")
    rank = next(one.rank for one in some if one.method == "all")
    told = "too few merges to rank"
    if rank.rho is not None:
        told = f"Spearman's rho {rank.rho:+.2f}, p = {rank.p:.3g}, n = {rank.n}"
    _title(picture, "Similarity and gain", f"all methods together: {told}", size=size)
    return picture


def _words(report: Study) -> dict[str, str]:
    words = {
        "gain": f"Heatmap of Macro-Gain, sets of experts by methods. {report.verdict}",
        "og": "Heatmap of Macro-OG, sets of experts by methods",
    }
    if any(_axis(report.cells, method) for method in {row.method for row in report.cells}):
        words["sweep"] = "Macro-Gain over the first parameter of each method's grid, a line for each set of experts"
    if report.answers and any(len(one.experts) > 1 for one in report.outcomes):
        best, task = _shown_answers(report)
        words["answers"] = f"Items of {task} that {' and '.join(best.constituents)} and their merge have right"
    if any(one.points for one in report.correlations):
        words["similarity"] = "Cosine of the experts' task vectors against Macro-Gain"
    return words


def _sweep(axes: Axes, report: Study, method: str) -> None:
    axis = _axis(report.cells, method)
    assert axis
    for number, one in enumerate(each for each in report.outcomes if each.method == method):
        fixed = {name: value for name, value in one.settings.items() if name not in (axis, "seed")}
        found: dict[float, list[float]] = {}
        for row in report.cells:
            same = (row.stage, row.experts, row.method) == (one.stage, one.experts, method)
            if same and all(row.settings[name] == value for name, value in fixed.items()):
                found.setdefault(float(row.settings[axis]), []).append(row.macro_gain[report.main_kind])
        xs = sorted(found)
        ys = [float(np.mean(found[x])) for x in xs]
        colour = LINES[number % len(LINES)]
        axes.plot(xs, ys, "-", color=colour, linewidth=1.3, marker=".", label=f"{one.stage}: {_who(one.experts)}")
        at = float(one.settings[axis])
        axes.plot([at], [ys[xs.index(at)]], "o", color=colour, markersize=7, markerfacecolor="none")
    _plain(axes)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.set_title(method, loc="left", fontsize=8.5)
    axes.set_xlabel(axis, labelpad=1)


def _axis(cells: Sequence[CellRow], method: str) -> str | None:
    """The first parameter of a method's grid that has several values."""
    rows = [row for row in cells if row.method == method]
    names = [name for name in rows[0].settings if name != "seed"]
    return next((name for name in names if len({row.settings[name] for row in rows}) > 1), None)


def _shown_answers(report: Study) -> tuple[Outcome, str]:
    """The merge of several experts, and the task, in which most emerged."""
    some = [one for one in report.outcomes if len(one.experts) > 1]
    pairs = [(one, each.answers) for one in some for each in one.tasks if each.answers]
    best, found = max(pairs, key=lambda pair: pair[1].emerged / pair[1].items)
    return best, found.task


def _who(experts: Sequence[str]) -> str:
    names = [repo.partition("/")[2] for repo in experts]
    return short(" + ".join(names), length=34)


def _unit(report: Study) -> str:
    return "share right" if report.main_kind == "score" else "nats/token"


def _title(picture: Figure, title: str, told: str, *, size: tuple[float, float]) -> None:
    picture.text(0.12 / size[0], 1 - 0.12 / size[1], title, fontsize=12, fontweight="bold", va="top")
    picture.text(0.12 / size[0], 1 - 0.4 / size[1], told, color=MUTED, va="top", fontsize=8.5)


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5)
