"""How far each group of weights went: a strength from 0 (the base) over 1 (the adapted model) to beyond."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.dashboard.charts.scales import Scale, figure, percent
from app.dashboard.charts.svg import chart, element, line, text, tip

WIDTH, LEFT, RIGHT, TOP, ROW = 560.0, 120.0, 56.0, 40.0, 24.0


@dataclass(frozen=True, kw_only=True)
class Strength:
    """One group of weights. `t` is their mean strength, `share` their part of all parameters, 0 to 1."""

    group: str
    t: float
    parameters: int | None = None
    share: float | None = None


def strengths_chart(groups: Sequence[Strength]) -> str:
    """A bar from the adapted model (t = 1) to each group's strength; the axis grows past 1 as far as the groups do."""
    if not groups:
        return ""
    every = [one.t for one in groups]
    across = Scale(low=min(0.0, *every), high=max(1.0, *every), start=LEFT, stop=WIDTH - RIGHT)
    bottom = TOP + ROW * len(groups)
    ticks = [tick for tick in across.ticks(most=6) if tick not in (0, 1)]
    rules = [line(across.at(tick), TOP, across.at(tick), bottom, class_="rule") for tick in ticks]
    marks = [text(across.at(tick), bottom + 16, f"{tick:g}", class_="soft", anchor="middle") for tick in (0, *ticks, 1)]
    ends = ((0.0, "base"), (1.0, "adapted"))
    return chart(
        text(0, 14, "mean strength t by group of weights", class_="soft"), *rules,
        *(text(across.at(t), TOP - 6, name, class_="soft", anchor="middle") for t, name in ends),
        *(_bar(one, across=across, y=TOP + ROW * i) for i, one in enumerate(groups)), *marks,
        *(line(across.at(t), TOP, across.at(t), bottom, class_="axis") for t, _ in ends),
        width=WIDTH, height=bottom + 26,
        label="Mean strength of each group of weights: 0 is the base, 1 the adapted model",
    )  # fmt: skip


def _bar(one: Strength, *, across: Scale, y: float) -> str:
    """The value stands at the right, where no bar reaches."""
    low, high = sorted((across.at(1), across.at(one.t)))
    beyond = one.t > 1
    share = f", {percent(one.share)} of the parameters" if one.share is not None else ""
    said = tip(f"{one.group}: t = {figure(one.t)}{share}{', beyond the adapted model' if beyond else ''}")
    class_ = "bar past" if beyond else "bar"
    bar = element("rect", x=low, y=y + 4, width=max(1.0, high - low), height=ROW - 8, class_=class_)
    aside = text(WIDTH - RIGHT + 8, y + ROW * 0.68, figure(one.t))
    return element("g", said, text(LEFT - 10, y + ROW * 0.68, one.group, anchor="end"), bar, aside)
