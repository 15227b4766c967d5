"""When each stage of each attempt ran."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.dashboard.charts.scales import Scale
from app.dashboard.charts.svg import chart, element, line, text, tip

WIDTH, LEFT, RIGHT, TOP, ROW = 640.0, 110.0, 70.0, 26.0, 22.0
ROUND = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""seconds between marks"""


def gantt_chart(stages: Sequence[Mapping[str, Any]], *, now: datetime) -> str:
    """One bar per stage, those of later attempts below; empty without stages.

    `stages` are a job's: `name`, `attempt`, `started_at`, `ended_at` (datetimes or ISO 8601; null while it runs, drawn
    up to `now`).
    """
    if not stages:
        return ""
    spans = [_span(stage, now=now) for stage in stages]
    first = min(start for start, _ in spans)
    whole = max((stop - first).total_seconds() for _, stop in spans)
    across = Scale(low=0, high=max(whole, 0.001), start=LEFT, stop=WIDTH - RIGHT)
    bars = [
        _bar(stage, y=TOP + ROW * i, across=across, begin=(start - first).total_seconds(),
             end=(stop - first).total_seconds(), several=len({s["attempt"] for s in stages}) > 1)
        for i, (stage, (start, stop)) in enumerate(zip(stages, spans, strict=True))
    ]  # fmt: skip
    bottom = TOP + ROW * len(stages)
    return chart(
        *_marks(across, whole=whole, bottom=bottom), *bars, width=WIDTH, height=bottom + 26,
        label=f"Stages of the job over {duration(whole)}",
    )  # fmt: skip


def duration(seconds: float) -> str:
    """A length of time, short: `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _span(stage: Mapping[str, Any], *, now: datetime) -> tuple[datetime, datetime]:
    start = _time(stage["started_at"])
    return start, max(start, _time(stage["ended_at"]) if stage["ended_at"] else now)


def _time(given: datetime | str) -> datetime:
    return given if isinstance(given, datetime) else datetime.fromisoformat(given)


def _bar(
    stage: Mapping[str, Any], *, y: float, across: Scale, begin: float, end: float, several: bool
) -> str:  # fmt: skip
    running = stage["ended_at"] is None
    x, width = across.at(begin), max(2.0, across.at(end) - across.at(begin))
    name = f"{stage['name']} · {stage['attempt']}" if several else stage["name"]
    took = duration(end - begin) + (", running" if running else "")
    return element(
        "g", tip(f"attempt {stage['attempt']}, {stage['name']}: {took}"),
        text(LEFT - 8, y + 0.68 * ROW, name, anchor="end"),
        element("rect", x=x, y=y + 3, width=width, height=ROW - 6, rx=2, class_="bar running" if running else "bar"),
        text(x + width + 6, y + 0.68 * ROW, duration(end - begin) + (" …" if running else ""), class_="soft"),
    )  # fmt: skip


def _marks(across: Scale, *, whole: float, bottom: float) -> list[str]:
    step = next((s for s in ROUND if whole / s <= 6), ROUND[-1])
    ticks = [step * i for i in range(int(whole / step) + 1)]
    rules = [line(across.at(t), TOP - 4, across.at(t), bottom + 4, class_="rule") for t in ticks]
    return rules + [text(across.at(t), bottom + 20, duration(t), class_="soft", anchor="middle") for t in ticks]
