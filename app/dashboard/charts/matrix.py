"""Studies: a grid of differences, a value over a setting, and which items each model answers rightly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from app.dashboard.charts.scales import Scale, figure
from app.dashboard.charts.svg import chart, element, line, path, text, tip

CELL, ROW, TOP, CHAR, LEAST = 76.0, 26.0, 56.0, 7.2, 64.0
WIDTH, LEFT, RIGHT, BOTTOM, KEY = 560.0, 56.0, 16.0, 260.0, 250.0
SERIES = 6
"""how many lines differ by colour and dash; later ones begin anew"""

Grid = Sequence[Sequence[float | None]]
Answer = Literal["right", "wrong", "won", "lost"]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Signed values by row and column: `Gain` or `OG` of methods (rows) on tasks (columns), in the metric's unit."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Grid
    label: str
    unit: str = ""
    best: bool = True
    """whether the best of each column is framed"""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a sweep: `y` at each `x`, with intervals where they are known."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How a value goes with a setting (a strength, a density), method by method."""

    series: Sequence[Series]
    across: str
    up: str


@dataclass(frozen=True, kw_only=True)
class AnswerSheet:
    """Item by item (columns, in the caller's order) what each model (rows) answers.

    `won` are items right here and wrong with every constituent, `lost` the other way round.
    """

    models: Sequence[str]
    answers: Sequence[Sequence[Answer]]
    label: str = field(default="Answers by model and item")


def matrix_chart(data: Matrix) -> str:
    """Gains and losses differ by colour and by their sign, which stands in the cell. Empty without rows or columns."""
    if not data.rows or not data.columns:
        return ""
    left = max(LEAST, 16 + CHAR * max(len(name) for name in data.rows))
    most = max((abs(v) for row in data.values for v in row if v is not None), default=0.0)
    cells = [
        _value_cell(data, i, j, x=left + CELL * j, y=TOP + ROW * i, most=most)
        for i in range(len(data.rows))
        for j in range(len(data.columns))
    ]
    names = [text(left - 8, TOP + ROW * (i + 0.68), name, anchor="end") for i, name in enumerate(data.rows)]
    heads = [
        element("g", tip(name), text(left + CELL * (j + 0.5), TOP - 8, _short(name), class_="soft", anchor="middle"))
        for j, name in enumerate(data.columns)
    ]
    title = data.label + (f" ({data.unit})" if data.unit else "")
    return chart(
        text(8, 18, title), *heads, *names, *cells,
        width=max(left + CELL * len(data.columns) + 8, 16 + CHAR * len(title)),
        height=TOP + ROW * len(data.rows) + 10, label=f"{data.label}, {len(data.rows)} by {len(data.columns)}",
    )  # fmt: skip


def sweep_chart(data: Sweep) -> str:
    """A line per series, by colour, dash and mark; zero is ruled where it is within. Empty without points."""
    known = [(x, y) for one in data.series for x, y in zip(one.x, one.y, strict=True) if y is not None]
    if not known:
        return ""
    ends = [end for one in data.series for interval in one.intervals if interval for end in interval]
    across = _scale([x for x, _ in known], LEFT, WIDTH - RIGHT)
    up = _scale([*(y for _, y in known), *ends], BOTTOM, 36.0)
    lines = [_series(one, number=i, across=across, up=up) for i, one in enumerate(data.series)]
    keys = -(-len(data.series) // _key_columns(data.series))
    height = BOTTOM + 54 + 18 * keys
    return chart(
        *_axes(data, across=across, up=up), *lines, *_keys(data.series), width=WIDTH, height=height,
        label=f"{data.up} by {data.across}: {', '.join(one.name for one in data.series)}",
    )  # fmt: skip


def answer_sheet_chart(data: AnswerSheet) -> str:
    """One bar per model of as many stripes as items; what was won is tall and accented, what was lost hangs below."""
    items = max((len(row) for row in data.answers), default=0)
    if not items:
        return ""
    left = max(LEAST, 16 + CHAR * max(len(name) for name in data.models))
    each = max(0.8, min(8.0, 640.0 / items))
    rows = [
        _sheet_row(name, answers, x=left, y=40 + ROW * i, each=each)
        for i, (name, answers) in enumerate(zip(data.models, data.answers, strict=True))
    ]
    foot = 40 + ROW * len(data.models) + 20
    key = [
        element("g", _stripe(state, x=left + 86 * i, y=foot - 12, width=14), text(left + 20 + 86 * i, foot + 4, state))
        for i, state in enumerate(("right", "won", "lost"))
    ]
    return chart(
        text(8, 18, f"{data.label}: {items} items"), *rows, *key, width=max(left + each * items + 60, left + 260),
        height=foot + 12, label=f"{data.label}: {len(data.models)} models, {items} items",
    )  # fmt: skip


def _value_cell(data: Matrix, i: int, j: int, *, x: float, y: float, most: float) -> str:
    value = data.values[i][j]
    inner = {"x": x + 0.75, "y": y + 0.75, "width": CELL - 1.5, "height": ROW - 1.5}
    said = tip(f"{data.rows[i]}, {data.columns[j]}: {_signed(value)} {data.unit}".rstrip())
    if value is None:
        return element("g", said, element("rect", **inner, class_="empty"))
    depth = 0.06 + 0.44 * abs(value) / most if most else 0.0  # never so deep that the figure is lost in it
    class_ = "plus" if value > 0 else "minus" if value else "ground"
    ground = element("rect", **inner, class_=class_, fill_opacity=depth if value else None)
    frame = element("rect", **inner, class_="frame") if data.best and _is_best(data, i, j) else ""
    return element("g", said, ground, frame, text(x + CELL / 2, y + 0.68 * ROW, _signed(value), anchor="middle"))


def _is_best(data: Matrix, i: int, j: int) -> bool:
    column = [row[j] for row in data.values]
    best = max((value for value in column if value is not None), default=None)
    return len(column) > 1 and column[i] == best and column.index(best) == i


def _series(one: Series, *, number: int, across: Scale, up: Scale) -> str:
    class_ = f"series s{number % SERIES}"
    at = [None if y is None else (across.at(x), up.at(y)) for x, y in zip(one.x, one.y, strict=True)]
    bars = [
        line(across.at(x), up.at(interval[0]), across.at(x), up.at(interval[1]), class_="interval")
        for x, interval in zip(one.x, one.intervals, strict=bool(one.intervals))
        if interval
    ]
    marks = [
        element("g", tip(f"{one.name}: {figure(y)} at {figure(x)}"), _mark(number, *place))
        for x, y, place in zip(one.x, one.y, at, strict=True)
        if place
    ]
    return element("g", *bars, path(at, class_=f"line {class_}"), *marks, class_=class_)


def _mark(number: int, x: float, y: float) -> str:
    """Disc, square, diamond, triangle, by turns."""
    if number % 4 == 0:
        return element("circle", cx=x, cy=y, r=3.4, class_="point")
    corners = {1: ((-3, -3), (3, -3), (3, 3), (-3, 3)), 2: ((0, -4.4), (4.4, 0), (0, 4.4), (-4.4, 0)),
               3: ((0, -4.2), (4, 3.2), (-4, 3.2))}[number % 4]  # fmt: skip
    return path([(x + dx, y + dy) for dx, dy in (*corners, corners[0])], class_="point")


def _keys(series: Sequence[Series]) -> list[str]:
    parts, columns = [], _key_columns(series)
    for i, one in enumerate(series):
        x, y = LEFT + KEY * (i % columns), BOTTOM + 54 + 18 * (i // columns)
        class_ = f"series s{i % SERIES}"
        stroke = line(x, y - 4, x + 26, y - 4, class_=f"line {class_}")
        parts += [element("g", stroke, _mark(i, x + 13, y - 4), class_=class_), text(x + 34, y, one.name)]
    return parts


def _key_columns(series: Sequence[Series]) -> int:
    """Two where the longest name leaves room for another beside it."""
    return 2 if max(len(one.name) for one in series) * CHAR < KEY - 40 else 1


def _axes(data: Sweep, *, across: Scale, up: Scale) -> list[str]:
    parts = []
    for tick in up.ticks(most=6):
        parts.append(line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick), class_="axis" if tick == 0 else "rule"))
        parts.append(text(LEFT - 8, up.at(tick) + 4, figure(tick), class_="soft", anchor="end"))
    marks = [text(across.at(t), BOTTOM + 18, f"{t:g}", class_="soft", anchor="middle") for t in across.ticks(most=7)]
    foot = line(LEFT, BOTTOM, WIDTH - RIGHT, BOTTOM, class_="axis")
    return [*parts, foot, *marks, text(LEFT, 22, f"↑ {data.up}"),
            text((LEFT + WIDTH - RIGHT) / 2, BOTTOM + 34, f"{data.across} →", anchor="middle")]  # fmt: skip


def _scale(values: Sequence[float], start: float, stop: float) -> Scale:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    return Scale(low=low - room, high=high + room, start=start, stop=stop)


def _sheet_row(name: str, answers: Sequence[Answer], *, x: float, y: float, each: float) -> str:
    """Equal answers beside each other are one stripe, so that a thousand items stay small."""
    stripes, place = [], x
    for state, run in groupby(answers):
        width = each * len(list(run))
        stripes.append("" if state == "wrong" else _stripe(state, x=place, y=y, width=width))
        place += width
    right = sum(answer in {"right", "won"} for answer in answers)
    said = tip(f"{name}: {right} of {len(answers)} right, {answers.count('won')} won, {answers.count('lost')} lost")
    ground = element("rect", x=x, y=y + 5, width=each * len(answers), height=14, class_="ground")
    share = text(x + each * len(answers) + 8, y + 16, f"{100 * right / len(answers):.0f} %", class_="soft")
    return element("g", said, text(x - 8, y + 16, name, anchor="end"), ground, *stripes, share)


def _stripe(state: str, *, x: float, y: float, width: float) -> str:
    top, height = {"right": (5, 14), "won": (0, 19), "lost": (12, 12)}[state]
    return element("rect", x=x, y=y + top, width=width, height=height, class_=state)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}" if value else "0"


def _short(name: str) -> str:
    return name if len(name) <= 11 else name[:10] + "…"
