"""docs/evidence.md from the results: every pair and seed, whatever came out."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.plan import ASKED, pairs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence.md"
BEGIN, END = "<!-- tables: python -m benchmarks.evidence -->\n", "<!-- end of tables -->\n"
DRAWS = 4000
Result = Mapping[str, Any]


def write() -> Path:
    """The page with its tables made anew."""
    results = [json.loads(pair.results.read_text()) for pair in pairs(small=False) if pair.results.exists()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(_tables(results)) + "\n" + END + after)
    return PAGE


def _tables(results: Sequence[Result]) -> Iterator[str]:
    yield from _section("The pairs", _pairs(results))
    yield from _section("`auto` beside the uniform curve, every pair", _auto(results))
    yield from _section("`auto`, mean over seeds", _cells(results))
    for cell, members in _by_cell(results).items():
        yield from _section(f"All methods: {cell}", _families(members))
    yield from _section("What it costs", _costs(results))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"### {title}", "", *lines)


def _pairs(results: Sequence[Result]) -> Iterator[str]:
    yield "| pair | seed | parameters | general, base → adapted | domain, base → adapted |"
    yield "| --- | --- | --- | --- | --- |"
    for one in results:
        (a, b), (c, d) = one["losses"]["general"], one["losses"]["domain"]
        name = f"{one['pair'][0]}, {one['pair'][1]} | {one['pair'][2]} | {one['parameters'] / 1e6:.2f} M"
        yield f"| {name} | {a:.2f} → {b:.2f} | {c:.2f} → {d:.2f} |"


def _auto(results: Sequence[Result]) -> Iterator[str]:
    yield "| pair | seed | search | asked gain | uniform undoes | `auto` undoes, at gain | over uniform at equal gain |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in results:
        for least in map(str, ASKED):
            uniform, auto = one["asked"]["uniform"][least], one["auto"][least]
            kept = "" if auto["searched"] else " (uniform kept)"
            yield (
                f"| {one['pair'][0]}, {one['pair'][1]} | {one['pair'][2]} | {_settings(one)} | {least} | "
                f"{_percent(uniform)} | "
                f"{_percent(auto['retention'])} at {100 * auto['gain']['value']:.1f}{kept} | "
                f"{_points(auto['advantage'])} |"
            )


def _settings(one: Result) -> str:
    """Which search it was: results of earlier settings stand until they are made anew."""
    settings = one.get("search_settings") or {"most": 1.0}
    return f"t ≤ {settings['most']:g}{'' if 'curvature' in settings else ', as first written'}"


def _cells(results: Sequence[Result]) -> Iterator[str]:
    yield "| cell | seeds | " + " | ".join(f"gain {least}" for least in ASKED) + " |"
    yield "| --- | --- |" + " --- |" * len(ASKED)
    for cell, members in _by_cell(results).items():
        told = [_points(_mean([one["auto"][str(least)] for one in members])) for least in ASKED]
        yield f"| {cell} | {len(members)} | " + " | ".join(told) + " |"


def _families(members: Sequence[Result]) -> Iterator[str]:
    yield "| method | share restored | " + " | ".join(f"gain {least}" for least in ASKED) + " |"
    yield "| --- | --- |" + " --- |" * len(ASKED)
    for family in dict.fromkeys(_plain(name) for one in members for name in one["asked"]):
        cells = [_family_cell(members, family, str(least)) for least in ASKED]
        shares = [point["share"] for one in members for name, points in one["points"].items() if _plain(name) == family
                  for point in points if point["t"] != 1]  # fmt: skip
        yield f"| {family} | {100 * float(np.mean(shares)):.0f} % | " + " | ".join(cells) + " |"
    told = [_points(_mean([one["auto"][str(least)] for one in members])) for least in ASKED]
    yield "| **`auto`** | 100 % | " + " | ".join(told) + " |"


def _family_cell(members: Sequence[Result], family: str, least: str) -> str:
    found = [at[least] for one in members for name, at in one["asked"].items() if _plain(name) == family]
    reached = [one for one in found if one is not None]
    if not reached:
        return "not reached"
    if family == "uniform":
        return f"undoes {100 * float(np.mean([one['value'] for one in reached])):.1f} %"
    return _points(_mean(reached))


def _plain(name: str) -> str:
    """`random 1` to `random 3` are one method."""
    return name.rstrip(" 123") if name.startswith("random") else name


def _mean(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean advantage; its interval over pairs drawn anew, and of each pair its items."""
    random = np.random.default_rng(0)
    draws = [np.array(one["draws"]) for one in members]
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        some = random.integers(len(draws), size=len(draws))
        drawn[i] = np.mean([random.choice(draws[j]) for j in some])
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(np.mean([one["advantage"]["value"] for one in members]))
    return {"value": value, "low": float(low), "high": float(high)}


def _costs(results: Sequence[Result]) -> Iterator[str]:
    yield "| cell | adaptation | scoring | merging | scoring + merging, of the adaptation | a search (60 evaluations) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for cell, members in _by_cell(results).items():
        mean = {key: float(np.mean([one["costs"][key] for one in members])) for key in members[0]["costs"]}
        both = (mean["scoring"] + mean["merging"]) / mean["adaptation"]
        yield (
            f"| {cell} | {mean['adaptation']:.1f} s | {mean['scoring']:.2f} s | {mean['merging']:.3f} s | "
            f"{100 * both:.1f} % | {mean['search']:.0f} s |"
        )


def _by_cell(results: Sequence[Result]) -> dict[str, list[Result]]:
    cells: dict[str, list[Result]] = {}
    for one in results:
        cells.setdefault(f"{one['pair'][0]}, {one['pair'][1]}", []).append(one)
    return cells


def _percent(told: Mapping[str, float]) -> str:
    return f"{100 * told['value']:.1f} % [{100 * told['low']:.1f}, {100 * told['high']:.1f}]"


def _points(told: Mapping[str, float]) -> str:
    return f"{100 * told['value']:+.1f} [{100 * told['low']:+.1f}, {100 * told['high']:+.1f}]"


