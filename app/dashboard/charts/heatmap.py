"""Layer by module: one score by the depth of colour, restored cells framed and dotted."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.dashboard.charts.scales import figure
from app.dashboard.charts.svg import chart, element, line, text, tip

METRICS = {
    "score": "score", "relative_change": "relative change ‖Wa - Wb‖ / ‖Wb‖", "snr": "SNR", "swci": "SWCI",
    "svdr": "SVDR",
}  # fmt: skip
"""what can be drawn: fields of the report's heatmap, and what they are called"""
ROW, TOP, LEFT, LEGEND = 22.0, 26.0, 64.0, 120.0
WIDE_RANGE = 20.0
"""a quotient of values from which the depth of colour goes by their logarithm"""

Grid = Sequence[Sequence[float | None]]
Link = Callable[[str, int], str | None]


def heatmap_chart(report: Mapping[str, Any], *, metric: str = "score", link: Link | None = None) -> str:
    """The heatmap of one of `METRICS`; empty where nothing was scored within layers.

    `link(module, layer)` is where a cell leads to (a tensor's panel); its text is escaped.
    """
    data = report["heatmap"]
    modules, layers = data["modules"], data["layers"]
    if not layers:
        return ""
    cell = max(9.0, min(26.0, 720.0 / len(layers)))
    width, height = LEFT + max(cell * len(layers), 220.0) + LEGEND, TOP + ROW * len(modules) + 34
    depth, ends, log = _depths(data[metric], whole=metric == "score")
    cells = [
        _cell(data, metric, x=LEFT + cell * j, y=TOP + ROW * i, width=cell, depth=depth[i][j], at=(i, j), link=link)
        for i in range(len(modules))
        for j in range(len(layers))
    ]
    names = [text(LEFT - 8, TOP + ROW * (i + 0.68), name, anchor="end") for i, name in enumerate(modules)]
    title = METRICS[metric] + (" (depth of colour by its logarithm)" if log else "")
    return chart(
        text(LEFT, 16, title, class_="soft"), *names, *cells, *_columns(layers, cell=cell, y=height - 20),
        *_legend(ends, x=width - LEGEND + 18), width=width, height=height,
        label=f"Heatmap of {METRICS[metric]} by layer and module; restored cells are framed and dotted",
        role="group" if link else "img",
    )  # fmt: skip


def _depths(grid: Grid, *, whole: bool) -> tuple[list[list[float | None]], tuple[float, float], bool]:
    """Each value as 0 to 1, the values that these two stand for, and whether by logarithm. Outliers do not stretch."""
    known = sorted(value for row in grid for value in row if value is not None and value > 0)
    low, high = (known[int(q * (len(known) - 1))] for q in (0.03, 0.97)) if known else (0.0, 1.0)
    log = not whole and low > 0 and high / low > WIDE_RANGE
    low, high = (0.0, 1.0) if whole else (low if log else 0.0, high)

    def depth(value: float | None) -> float | None:
        if value is None:
            return None
        share = math.log(max(value, low) / low) / math.log(high / low) if log else value / high
        return min(1.0, max(0.0, share))

    return [[depth(value) for value in row] for row in grid], (low, high), log


def _cell(
    data: Mapping[str, Any], metric: str, *, x: float, y: float, width: float, depth: float | None,
    at: tuple[int, int], link: Link | None,
) -> str:  # fmt: skip
    i, j = at
    module, layer, share = data["modules"][i], data["layers"][j], data["restored"][i][j]
    inner = {"x": x + 0.75, "y": y + 0.75, "width": width - 1.5, "height": ROW - 1.5}
    fate = "restored" if share == 1 else f"{share:.0%} restored" if share else "as adapted"
    said = tip(f"layer {layer}, {module}: {METRICS[metric].split()[0]} {figure(data[metric][i][j])}, {fate}")
    rect = element("rect", **inner, class_="empty" if depth is None else "ground")
    rect += "" if depth is None else element("rect", **inner, class_="heat", fill_opacity=0.04 + 0.96 * depth)
    if share:
        frame = {**inner, "x": x + 1.75, "y": y + 1.75, "width": width - 3.5, "height": ROW - 3.5}
        rect += element("rect", **frame, class_="frame" if share == 1 else "frame part")
        rect += element("circle", cx=x + width / 2, cy=y + ROW / 2, r=2.2, class_="dot")
    target = link(module, layer) if link else None
    return element("a", said, rect, href=target, class_="cell") if target else element("g", said, rect, class_="cell")


def _columns(layers: Sequence[int], *, cell: float, y: float) -> list[str]:
    step = next((s for s in (1, 2, 5, 10, 20, 50) if cell * s >= 22), 100)
    marks = [
        text(LEFT + cell * (j + 0.5), y, str(layer), class_="soft", anchor="middle")
        for j, layer in enumerate(layers)
        if layer % step == 0
    ]
    return [*marks, text(LEFT, y + 16, "layer", class_="soft")]


def _legend(ends: tuple[float, float], *, x: float) -> list[str]:
    """Five depths of colour with the values at the ends, and the sign of a restored cell."""
    scale = [
        element("rect", x=x, y=TOP + 18 * i, width=14, height=18, class_="heat", fill_opacity=1 - 0.24 * i)
        for i in range(5)
    ]
    frame = element("rect", x=x, y=TOP + 104, width=14, height=14, class_="frame")
    return [
        *scale, line(x, TOP + 90, x + 14, TOP + 90, class_="axis"),
        text(x + 20, TOP + 10, f"≥ {figure(ends[1])}" if ends[1] != 1 else "1", class_="soft"),
        text(x + 20, TOP + 90, figure(ends[0]), class_="soft"),
        frame, element("circle", cx=x + 7, cy=TOP + 111, r=2.2, class_="dot"), text(x + 20, TOP + 115, "restored"),
    ]  # fmt: skip
