"""How far the tensors moved: a histogram of the relative change, restored tensors hatched on top."""

from collections.abc import Mapping
from typing import Any

from app.dashboard.charts.scales import Scale, figure, percent
from app.dashboard.charts.svg import chart, element, line, text, tip

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 230.0, 40.0, 14.0, 44.0, 178.0


def change_chart(report: Mapping[str, Any]) -> str:
    """The histogram of the report's `distribution`; empty where no tensor changed."""
    data = report["distribution"]
    edges, kept, restored = data["edges"], data["kept"], data["restored"]
    if not edges:
        return ""
    most = max(a + b for a, b in zip(kept, restored, strict=True))
    across = Scale(low=edges[0], high=edges[-1], start=LEFT, stop=WIDTH - RIGHT, log=True)
    up = Scale(low=0, high=1.1 * most, start=BOTTOM, stop=TOP)
    bars = [_bar(i, data, across=across, up=up) for i in range(len(kept))]
    beside = [f"{data[key]} {what}" for key, what in (("unchanged", "unchanged"), ("endless", "of a zero base"))
              if data[key]]  # fmt: skip
    return chart(
        text(LEFT, 16, "tensors by relative change ‖Wa - Wb‖ / ‖Wb‖, log scale", class_="soft"),
        text(LEFT, 34, ", ".join(beside), class_="soft"), *_counts(up), *bars, *_median(data, across=across),
        line(LEFT, BOTTOM, WIDTH - RIGHT, BOTTOM, class_="axis"), *_changes(across), *_legend(),
        width=WIDTH, height=HEIGHT, label="Histogram of the relative change of the scored tensors",
    )  # fmt: skip


def _bar(i: int, data: Mapping[str, Any], *, across: Scale, up: Scale) -> str:
    x, stop = across.at(data["edges"][i]), across.at(data["edges"][i + 1])
    kept, restored = data["kept"][i], data["restored"][i]
    if not kept + restored:
        return ""
    low, high = (percent(data["edges"][j]) for j in (i, i + 1))
    said = tip(f"{low} to {high}: {kept} as adapted, {restored} restored")
    parts = [(kept, 0, "bar"), (restored, kept, "bar restored")]
    drawn = [
        element(
            "rect", x=x + 0.5, y=up.at(under + count), width=stop - x - 1, class_=class_,
            height=up.at(under) - up.at(under + count),
        )
        for count, under, class_ in parts
        if count
    ]  # fmt: skip
    if restored:  # a stroke across: the colour is not the only sign
        drawn.append(line(x + 0.5, up.at(kept), stop - 0.5, up.at(kept + restored), class_="stroke"))
    return element("g", said, *drawn)


def _counts(up: Scale) -> list[str]:
    whole = [tick for tick in up.ticks(most=4) if tick == int(tick)]
    rules = [line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick), class_="rule") for tick in whole if tick]
    return rules + [text(LEFT - 6, up.at(tick) + 4, f"{tick:g}", class_="soft", anchor="end") for tick in whole]


def _changes(across: Scale) -> list[str]:
    ticks = across.ticks(most=7)
    return [text(across.at(t), BOTTOM + 18, percent(t), class_="soft", anchor="middle") for t in ticks]


def _median(data: Mapping[str, Any], *, across: Scale) -> list[str]:
    value = data.get("median")
    if not value:
        return []
    x = across.at(value)
    side = "end" if x > 0.75 * WIDTH else None
    mark = text(x - 5 if side else x + 5, TOP + 8, f"median {figure(100 * value)} %", class_="soft", anchor=side)
    return [line(x, TOP, x, BOTTOM, class_="edge"), mark]


def _legend() -> list[str]:
    y = HEIGHT - 16
    return [
        element("rect", x=LEFT, y=y, width=14, height=10, class_="bar"), text(LEFT + 20, y + 9, "as adapted"),
        element("rect", x=LEFT + 110, y=y, width=14, height=10, class_="bar restored"),
        line(LEFT + 110, y + 10, LEFT + 124, y, class_="stroke"), text(LEFT + 130, y + 9, "restored"),
    ]  # fmt: skip
