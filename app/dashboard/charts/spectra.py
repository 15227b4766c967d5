"""One tensor's singular values, base, adapted and merged, with the noise edge, and what changed in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.charts.scales import Scale, figure
from app.dashboard.charts.svg import chart, line, path, text, tip

WIDTH, LEFT, RIGHT = 560.0, 56.0, 16.0
TOP, MIDDLE, UNDER, BOTTOM = 44.0, 224.0, 248.0, 318.0
FLOOR = 1e-3
"""of the largest singular value: what lies below is next to nothing"""

LINES = ("base", "adapted", "merged")


def spectra_chart(spectrum: Mapping[str, Any], *, name: str) -> str:
    """Above the values by rank on a log axis; below each one's change against the base.

    `spectrum` has `ranks`, `base`, `adapted`, perhaps `merged`, `edge`, `edge_adapted`, `count`, `shape`, `precision`:
    an entry of the report's `spectra`, or what `GET /merges/{id}/spectra` gives.
    """
    ranks = spectrum["ranks"]
    drawn = {side: spectrum[side] for side in LINES if spectrum.get(side)}
    across = Scale(low=1, high=max(spectrum["count"], 2), start=LEFT, stop=WIDTH - RIGHT)
    estimate = ", estimated" if spectrum.get("precision") == "fast" else ""
    shape = " x ".join(str(side) for side in spectrum["shape"])
    return chart(
        text(LEFT, 16, name), text(LEFT, 34, f"{shape}, {spectrum['count']} singular values{estimate}", class_="soft"),
        text(WIDTH - RIGHT, 34, "↑ singular value, log scale", class_="soft", anchor="end"),
        text(WIDTH - RIGHT, UNDER - 8, "↑ change against the base", class_="soft", anchor="end"),
        *_values(drawn, ranks, across=across, edge=spectrum.get("edge")), *_changes(drawn, ranks, across=across),
        *_ranks(across), *_legend(drawn, edge=spectrum.get("edge")), width=WIDTH, height=BOTTOM + 60,
        label=f"Singular values of {name}, {', '.join(drawn)}, on a log scale with the noise edge",
    )  # fmt: skip


def _values(
    drawn: Mapping[str, Sequence[float]], ranks: Sequence[int], *, across: Scale, edge: float | None
) -> list[str]:  # fmt: skip
    known = [value for values in drawn.values() for value in values if value > 0] + [edge or 1e-9]
    high = max(known)
    up = Scale(low=max(min(known), FLOOR * high), high=1.1 * high, start=MIDDLE, stop=TOP, log=True)
    lines = [_line(values, ranks, across=across, up=up, side=side) for side, values in drawn.items()]
    edges = [line(LEFT, up.at(edge), WIDTH - RIGHT, up.at(edge), class_="edge")] if edge else []
    return [*_rules(up, sign=figure), *edges, *lines]


def _line(values: Sequence[float], ranks: Sequence[int], *, across: Scale, up: Scale, side: str) -> str:
    points = [
        (across.at(rank), up.at(value)) if value > 0.9 * up.low else None
        for rank, value in zip(ranks, values, strict=True)
    ]
    return path(points, class_=f"line {side}", inside=tip(f"{side}: largest {figure(values[0])}"))


def _changes(drawn: Mapping[str, Sequence[float]], ranks: Sequence[int], *, across: Scale) -> list[str]:
    base = drawn["base"]
    floor = 1e-4 * max(base, default=0.0)
    changes = {
        side: [(value / one - 1) if one > floor else None for value, one in zip(values, base, strict=True)]
        for side, values in drawn.items()
        if side != "base"
    }
    last = max(1, int(0.97 * len(ranks)))  # the smallest few, near zero, jump
    most = max((abs(value) for values in changes.values() for value in values[:last] if value is not None), default=0.0)
    up = Scale(low=-(most or 0.01), high=most or 0.01, start=BOTTOM, stop=UNDER)
    lines = [
        path(
            [None if v is None else (across.at(rank), up.at(v)) for rank, v in zip(ranks, values, strict=True)],
            class_=f"line {side}", inside=tip(f"change of {side} against the base"),
        )
        for side, values in changes.items()
    ]  # fmt: skip
    return [*_rules(up, sign=lambda value: f"{100 * value:+.3g} %" if value else "0", most=4), *lines]


def _rules(up: Scale, *, sign: Any, most: int = 5) -> list[str]:
    return [
        part
        for tick in up.ticks(most=most)
        for part in (
            line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick), class_="rule"),
            text(LEFT - 6, up.at(tick) + 4, sign(tick), class_="soft", anchor="end"),
        )
    ]


def _ranks(across: Scale) -> list[str]:
    ticks = [across.low, *across.ticks(most=5)]
    marks = [text(across.at(t), BOTTOM + 18, f"{t:g}", class_="soft", anchor="middle") for t in ticks if t >= 1]
    return [line(LEFT, BOTTOM, WIDTH - RIGHT, BOTTOM, class_="axis"), *marks, text(LEFT, BOTTOM + 36, "rank →")]


def _legend(drawn: Mapping[str, Sequence[float]], *, edge: float | None) -> list[str]:
    shown = [(side, f"line {side}") for side in drawn] + ([(f"noise edge {figure(edge)}", "edge")] if edge else [])
    x, parts = LEFT, list[str]()
    for name, class_ in shown:
        parts += [line(x, BOTTOM + 50, x + 24, BOTTOM + 50, class_=class_), text(x + 30, BOTTOM + 54, name)]
        x += 44 + 7.5 * len(name)
    return parts
