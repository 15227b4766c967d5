"""What restoring costs: retention of general ability against domain gain kept, setting by setting."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.dashboard.charts.scales import Scale, percent
from app.dashboard.charts.svg import chart, element, line, path, text, tip

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 400.0, 64.0, 20.0, 40.0, 316.0

Kind = Literal["base", "adapted", "candidate", "control", "chosen"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model that was measured: both shares are means over tasks, 1 is as good as the parent."""

    label: str
    kind: Kind
    retention: float
    """merged over base on general tasks"""
    gain: float
    """(merged - base) / (adapted - base) on domain tasks"""
    retention_interval: Interval | None = None
    gain_interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """All that the chart draws: the trials, and what the recipe's gate asks for."""

    trials: Sequence[Trial]
    min_retention: float | None = None
    min_gain: float | None = None
    labels: tuple[str, str] = field(default=("retention of general tasks", "domain gain kept"))


def tradeoff_chart(data: TradeOff) -> str:
    """Each kind has a shape of its own; the chosen one is ringed, dominated others are pale. Empty without trials."""
    if not data.trials:
        return ""
    across = _scale([(t.retention, t.retention_interval) for t in data.trials], LEFT, WIDTH - RIGHT)
    up = _scale([(t.gain, t.gain_interval) for t in data.trials], BOTTOM, TOP)
    front = sorted((t for t in data.trials if not dominated(t, data.trials)), key=lambda t: t.retention)
    curve = path([(across.at(t.retention), up.at(t.gain)) for t in front], class_="line front")
    marks = [_trial(t, across=across, up=up, pale=t not in front and t.kind != "chosen") for t in data.trials]
    return chart(
        text(LEFT, 18, "up and to the right is better; the line joins what no other setting beats", class_="soft"),
        *_axes(across, up, labels=data.labels), *_gates(data, across=across, up=up), curve, *marks, *_legend(data),
        width=WIDTH, height=HEIGHT, label=f"{data.labels[1]} against {data.labels[0]}: {_best(data)}",
    )  # fmt: skip


def dominated(trial: Trial, others: Sequence[Trial]) -> bool:
    """Whether another trial is at least as good in both and better in one."""
    return any(
        other.retention >= trial.retention and other.gain >= trial.gain
        and (other.retention, other.gain) != (trial.retention, trial.gain)
        for other in others
    )  # fmt: skip


def _scale(values: Sequence[tuple[float, Interval | None]], start: float, stop: float) -> Scale:
    every = [x for value, interval in values for x in (value, *(interval or ()))]
    low, high = min(every), max(every)
    room = 0.08 * (high - low) or 0.05
    return Scale(low=low - room, high=high + room, start=start, stop=stop)


def _axes(across: Scale, up: Scale, *, labels: tuple[str, str]) -> list[str]:
    parts = []
    for tick in up.ticks(most=6):
        parts.append(line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick), class_="rule"))
        parts.append(text(LEFT - 8, up.at(tick) + 4, percent(tick), class_="soft", anchor="end"))
    for tick in across.ticks(most=6):
        parts.append(line(across.at(tick), TOP, across.at(tick), BOTTOM, class_="rule"))
        parts.append(text(across.at(tick), BOTTOM + 18, percent(tick), class_="soft", anchor="middle"))
    parts.append(line(LEFT, BOTTOM, WIDTH - RIGHT, BOTTOM, class_="axis"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, BOTTOM + 40, f"{labels[0]} →", anchor="middle"))
    return [*parts, text(LEFT, TOP - 6, f"↑ {labels[1]}")]


def _gates(data: TradeOff, *, across: Scale, up: Scale) -> list[str]:
    parts = []
    if data.min_retention is not None and across.low < data.min_retention < across.high:
        x = across.at(data.min_retention)
        parts.append(element("g", tip(f"the gate: at least {percent(data.min_retention)}"),
                             line(x, TOP, x, BOTTOM, class_="edge")))  # fmt: skip
    if data.min_gain is not None and up.low < data.min_gain < up.high:
        y = up.at(data.min_gain)
        parts.append(element("g", tip(f"the gate: at least {percent(data.min_gain)}"),
                             line(LEFT, y, WIDTH - RIGHT, y, class_="edge")))  # fmt: skip
    return parts


def _trial(trial: Trial, *, across: Scale, up: Scale, pale: bool) -> str:
    x, y = across.at(trial.retention), up.at(trial.gain)
    bars, class_ = [], "interval faint" if trial.kind == "control" else "interval"
    if trial.retention_interval:
        low, high = (across.at(end) for end in trial.retention_interval)
        bars.append(line(low, y, high, y, class_=class_))
    if trial.gain_interval:
        bars.append(line(x, up.at(trial.gain_interval[0]), x, up.at(trial.gain_interval[1]), class_=class_))
    said = tip(f"{trial.label}: retention {percent(trial.retention)}, gain kept {percent(trial.gain)}")
    named = trial.kind in ("base", "adapted", "chosen")
    right = x < 0.7 * WIDTH
    name = text(x + 10 if right else x - 10, y - 8, trial.label, anchor=None if right else "end") if named else ""
    return element("g", said, *bars, _sign(trial.kind, x, y), name, class_="trial pale" if pale else "trial")


def _sign(kind: Kind, x: float, y: float) -> str:
    """Base: square; adapted: diamond; candidate: disc; control: cross; chosen: disc in a ring."""
    if kind == "base":
        return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="mark base")
    if kind == "adapted":
        return path([(x, y - 7), (x + 7, y), (x, y + 7), (x - 7, y), (x, y - 7)], class_="mark adapted")
    if kind == "control":
        return path([(x - 4, y - 4), (x + 4, y + 4), None, (x - 4, y + 4), (x + 4, y - 4)], class_="cross")
    disc = element("circle", cx=x, cy=y, r=4, class_="mark candidate")
    return disc + (element("circle", cx=x, cy=y, r=9, class_="ring") if kind == "chosen" else "")


def _legend(data: TradeOff) -> list[str]:
    present = {trial.kind for trial in data.trials}
    kinds: tuple[Kind, ...] = ("base", "adapted", "candidate", "control", "chosen")
    x, parts = LEFT, []
    for kind in kinds:
        if kind in present:
            parts.append(element("g", _sign(kind, x, HEIGHT - 14), text(x + 14, HEIGHT - 10, kind)))
            x += 40 + 8 * len(kind)
    return parts


def _best(data: TradeOff) -> str:
    chosen = next((t for t in data.trials if t.kind == "chosen"), None)
    if chosen is None:
        return f"{len(data.trials)} settings"
    return f"chosen: retention {percent(chosen.retention)}, gain kept {percent(chosen.gain)}"
