"""docs/evidence.md from the results: every pair and seed, whatever came out."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.evidence.cells import AUTO, Result, family_cell, mean, percent, plain, points
from benchmarks.evidence.judge import judge
from benchmarks.evidence.plan import ASKED, PairName, pairs
from benchmarks.evidence.smollm2 import SMOLLM2

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence.md"
BEGIN, END = "<!-- tables: python -m benchmarks.evidence -->\n", "<!-- end of tables -->\n"
ABLATED = "only "
"""what the names of the ablation's selections begin with"""


def write() -> Path:
    """The page with its tables made anew."""
    results = [judged for pair in pairs(small=False) if (judged := _judged(pair))]
    real = _judged(SMOLLM2)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(tables(results, real=real)) + "\n" + END + after)
    return PAGE


def tables(results: Sequence[Result], *, real: Result | None) -> Iterator[str]:
    """All tables, line by line: of the small pairs, and of the real one, which stands by itself."""
    yield from _section("The pairs", _pairs(results))
    yield from _section("`auto` beside the uniform curve, every pair", _auto(results))
    yield from _section("`auto`, mean over seeds", _cells(results))
    yield from _section("Three architectures, one domain (math)", _architectures(results))
    ablated = [one for one in results if any(name.startswith(ABLATED) for name in one["asked"])]
    if ablated:
        yield from _section("Ablation: the scores alone and in pairs (llama, math)", _ablation(ablated))
    for cell, members in _by_cell(results).items():
        yield from _section(f"All methods: {cell}", _families(members))
    yield from _section("What it costs", _costs(results))
    if real:
        yield from _section("A real model: SmolLM2-135M, math, one seed", _real(real))
        yield from _section("All methods: SmolLM2-135M, math", _families([real]))


def _judged(pair: PairName) -> Result | None:
    """None of a pair that is not measured, or not to its end."""
    measured = json.loads(pair.measured.read_text()) if pair.measured.exists() else {}
    return judge(measured) if "search" in measured else None


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
    yield "| pair | seed | asked gain | uniform undoes | `auto` undoes, at gain | over uniform at equal gain |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in results:
        for least in map(str, ASKED):
            uniform, auto = one["asked"]["uniform"][least], one["auto"][least]
            kept = "" if auto["searched"] else " (uniform kept)"
            yield (
                f"| {one['pair'][0]}, {one['pair'][1]} | {one['pair'][2]} | {least} | "
                f"{percent(uniform)} | "
                f"{percent(auto['retention'])} at {100 * auto['gain']['value']:.1f}{kept} | "
                f"{points(auto['advantage'])} |"
            )


def _cells(results: Sequence[Result]) -> Iterator[str]:
    yield f"| cell | seeds | {_gains()} |"
    yield "| --- | --- |" + " --- |" * len(ASKED)
    for cell, members in _by_cell(results).items():
        told = [points(mean([one["auto"][str(least)] for one in members])) for least in ASKED]
        yield f"| {cell} | {len(members)} | " + " | ".join(told) + " |"


def _architectures(results: Sequence[Result]) -> Iterator[str]:
    """Every method on every architecture, at a middling and a high gain."""
    math = [one for one in results if one["pair"][1] == "math"]
    cells = {members[0]["pair"][0]: members for members in _by_cell(math).values()}
    gains = (0.9, 0.97)
    heads = [f"{name} ({len(members)} seeds), gain {least}" for name, members in cells.items() for least in gains]
    yield "| method | " + " | ".join(heads) + " |"
    yield "| --- |" + " --- |" * len(heads)
    families = dict.fromkeys(plain(name) for members in cells.values() for name in members[0]["asked"])
    for family in (*(name for name in families if not name.startswith(ABLATED)), AUTO):
        told = [family_cell(members, family, str(least)) for members in cells.values() for least in gains]
        yield f"| {family} | " + " | ".join(told) + " |"


def _ablation(members: Sequence[Result]) -> Iterator[str]:
    yield f"| selected by | seeds | {_gains()} |"
    yield "| --- | --- |" + " --- |" * len(ASKED)
    names = [name for name in members[0]["asked"] if name.startswith(ABLATED)]
    told = {name.removeprefix(ABLATED): name for name in names} | {
        "swci + svdr (spear's default)": "spear aggressive", "relative change": "relative_change",
        "nothing (random)": "random", "nothing, the embedding forced in": "random_embedding",
    }  # fmt: skip
    for label, family in told.items():
        cells = [family_cell(members, family, str(least)) for least in ASKED]
        yield f"| {label} | {len(members)} | " + " | ".join(cells) + " |"


def _families(members: Sequence[Result]) -> Iterator[str]:
    yield f"| method | share restored | {_gains()} |"
    yield "| --- | --- |" + " --- |" * len(ASKED)
    for family in dict.fromkeys(plain(name) for one in members for name in one["asked"]):
        if family.startswith(ABLATED):
            continue  # in a table of their own
        cells = [family_cell(members, family, str(least)) for least in ASKED]
        shares = [share for one in members for name, share in one["shares"].items() if plain(name) == family]
        yield f"| {family} | {100 * float(np.mean(shares)):.0f} % | " + " | ".join(cells) + " |"
    yield f"| {AUTO} | 100 % | " + " | ".join(family_cell(members, AUTO, str(least)) for least in ASKED) + " |"


def _real(one: Result) -> Iterator[str]:
    """The losses, and `auto` for all general text and for prose and code apart."""
    losses = ", ".join(f"{role} {a:.2f} → {b:.2f}" for role, (a, b) in one["losses"].items())
    yield f"{one['parameters'] / 1e6:.1f} M parameters. Nats per token, base → adapted: {losses}."
    yield ""
    roles = list(one["auto"][str(ASKED[0])]["abilities"])
    heads = "".join(f" {role}: undoes | {role}: over uniform |" for role in roles)
    yield f"| asked gain | uniform undoes | `auto` undoes, at gain | over uniform at equal gain |{heads}"
    yield "| --- | --- | --- | --- |" + " --- | --- |" * len(roles)
    for least in map(str, ASKED):
        auto = one["auto"][least]
        told = [auto["abilities"][role] for role in roles]
        apart = "".join(f" {percent(each['retention'])} | {points(each['advantage'])} |" for each in told)
        kept = "" if auto["searched"] else " (uniform kept)"
        yield (
            f"| {least} | {percent(one['asked']['uniform'][least])} | {percent(auto['retention'])} at "
            f"{100 * auto['gain']['value']:.1f}{kept} | {points(auto['advantage'])} |{apart}"
        )
    yield ""
    costs = one["costs"]
    yield (
        f"Core-seconds: scoring {costs['scoring']:.0f}, merging {costs['merging']:.1f}, one held-out evaluation "
        f"{costs['evaluation']:.0f}, the search {costs['search']:.0f} ({one['spent']:.0f} evaluations)."
    )


def _gains() -> str:
    return " | ".join(f"gain {least}" for least in ASKED)


def _costs(results: Sequence[Result]) -> Iterator[str]:
    yield "| cell | adaptation | scoring | merging | scoring + merging, of the adaptation | a search (60 evaluations) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for cell, members in _by_cell(results).items():
        spent = {key: float(np.mean([one["costs"][key] for one in members])) for key in members[0]["costs"]}
        both = (spent["scoring"] + spent["merging"]) / spent["adaptation"]
        yield (
            f"| {cell} | {spent['adaptation']:.1f} s | {spent['scoring']:.2f} s | {spent['merging']:.3f} s | "
            f"{100 * both:.1f} % | {spent['search']:.0f} s |"
        )


def _by_cell(results: Sequence[Result]) -> dict[str, list[Result]]:
    cells: dict[str, list[Result]] = {}
    for one in results:
        cells.setdefault(f"{one['pair'][0]}, {one['pair'][1]}", []).append(one)
    return cells
