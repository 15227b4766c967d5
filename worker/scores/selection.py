"""Which tensors are restored, and how far."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from worker.scores.modules import EMBEDDING, HEAD, matches
from worker.scores.ranking import changed, group_of
from worker.scores.rows import Row, is_scored, number

Unit = Literal["tensor", "block"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What to restore. Exactly one of the three sizes counts: a budget goes before the share."""

    share: float = 0.25
    """of each ranking group, in (0, 1]; the top ⌈share · n⌉ of its n tensors"""
    budget_bytes: int | None = None
    budget_parameters: int | None = None
    t: float = 0.5
    t_top: float | None = None
    """t of a unit that scores 1, where t is graded by score; `t` is then that of score 0"""
    ranking: str = "module_type"
    unit: Unit = "tensor"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sets: tuple[tuple[tuple[str, ...], float], ...] = ()
    """patterns and their own t, whatever the score; the first set that matches counts"""

    def grade(self, score: float) -> float:
        """The t of a unit selected by its score."""
        return self.t if self.t_top is None else self.t + (self.t_top - self.t) * score

    def forced(self, name: str) -> float | None:
        """The t that the patterns ask for, whatever the score; None where none does."""
        if matches(name, self.exclude):
            return None
        return next((t for patterns, t in (*self.sets, (self.include, self.t)) if matches(name, patterns)), None)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome: every scored row (and every included one) with `selected` and `t`; t = 0 is the base."""

    rows: list[Row]
    decisions: dict[str, float]
    """t of every selected tensor as it is stored; a tensor not in here is the adapted model's, byte for byte"""
    shares: dict[str, Any]
    """what is restored of the whole model and of each module type (see `shares`)"""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """What is selected as a whole: a stored tensor, the experts of a layer, or all scored tensors of a block."""

    group: str
    name: str
    score: float
    rows: tuple[Row, ...]

    def cost(self, key: Literal["parameters", "nbytes"]) -> int:
        return sum(row[key] for row in self.rows)


def choose(rows: Sequence[Row], *, others: Sequence[Row] = (), rules: Rules) -> Selection:
    """Apply `rules` to the ranked `rows`. `others`: unscored rows of the model's other tensors.

    Best score first, ties by name. A budget takes units in that order and stops at the first that does not fit, so a
    larger budget never drops anything. Tensors that match `exclude` are never restored; tensors that match a set or
    `include` always, scored or not, outside share and budget: exclusion goes first, then the sets. Unchanged tensors
    (see `ranking.UNCHANGED`) are never restored, but where a pattern asks for it and they are not quite the same.
    Patterns are shell-style (`fnmatch`) on the stored tensor's whole name. A stored tensor with several matrices is
    selected as a whole, and so are a layer's experts of one type, by the mean score of their matrices weighted by
    size; the units of such kinds make ranking groups of their own.
    """
    candidates = [row for row in rows if rules.forced(row["tensor"]) is None]
    candidates = [row for row in candidates if not matches(row["tensor"], rules.exclude)]
    units = _pick(candidates, rules=rules)
    ranked = {row["tensor"]: rules.grade(unit.score) for unit in units for row in unit.rows if changed(row)}
    final = [_fate(row, ranked=ranked, rules=rules) for row in rows]
    final += [_fate(row, ranked={}, rules=rules) for row in others if rules.forced(row["tensor"]) is not None]
    left = [row for row in others if rules.forced(row["tensor"]) is None]
    return Selection(
        rows=final,
        decisions={row["tensor"]: row["t"] for row in final if row["selected"]},
        shares=shares([*final, *left]),
        warnings=_warnings([*final, *left], rules=rules),
    )


def shares(rows: Iterable[Row]) -> dict[str, Any]:
    """What is restored of the model that `rows` are all tensors of.

    `tensors`, `parameters`, `bytes` (restored), `model_tensors`, `model_parameters`, `model_bytes` (in all), `share`
    (of the parameters); the same of each module type under `modules`; and what share of the model's parameters the
    embedding and the head are, restored or not: `embedding_share`, `head_share` (0 for a head tied to the embedding).
    """
    every = list(rows)
    kinds = sorted({row["module_type"] for row in every} | {EMBEDDING, HEAD})
    modules = {kind: _share([row for row in every if row["module_type"] == kind]) for kind in kinds}
    whole = _share(every)
    groups = {f"{kind}_share": _quotient(modules[kind], whole) for kind in (EMBEDDING, HEAD)}
    return {**whole, **groups, "modules": modules}


def _quotient(part: dict[str, int | float], whole: dict[str, int | float]) -> float:
    return part["model_parameters"] / whole["model_parameters"] if whole["model_parameters"] else 0.0


def _share(rows: list[Row]) -> dict[str, int | float]:
    chosen = [row for row in rows if row["selected"]]
    parameters, model = (sum(row["parameters"] for row in some) for some in (chosen, rows))
    return {
        "tensors": len({row["tensor"] for row in chosen}), "model_tensors": len({row["tensor"] for row in rows}),
        "parameters": parameters, "model_parameters": model,
        "bytes": sum(row["nbytes"] for row in chosen), "model_bytes": sum(row["nbytes"] for row in rows),
        "share": parameters / model if model else 0.0,
    }  # fmt: skip


def _pick(rows: Sequence[Row], *, rules: Rules) -> list[_Unit]:
    units = sorted(_units(rows, rules=rules), key=lambda unit: (-unit.score, unit.name))
    if rules.budget_bytes is not None:
        return _within(units, budget=rules.budget_bytes, key="nbytes")
    if rules.budget_parameters is not None:
        return _within(units, budget=rules.budget_parameters, key="parameters")
    groups: dict[str, list[_Unit]] = {}
    for unit in units:
        groups.setdefault(unit.group, []).append(unit)
    # 1e-9: 0.07 * 100 is a little over 7 in binary
    return [unit for group in groups.values() for unit in group[: math.ceil(rules.share * len(group) - 1e-9)]]


def _within(units: list[_Unit], *, budget: int, key: Literal["parameters", "nbytes"]) -> list[_Unit]:
    """The longest run of best units, unchanged ones left out, whose cost is within the budget."""
    taken: list[_Unit] = []
    for unit in units:
        if not any(map(changed, unit.rows)):
            continue
        budget -= unit.cost(key)
        if budget < 0:
            break
        taken.append(unit)
    return taken


def _units(rows: Sequence[Row], *, rules: Rules) -> list[_Unit]:
    """The rows by what is selected together: their `unit`, or their layer where blocks are asked for."""

    def key(row: Row) -> str:
        return f"{row['layer']:08d}" if rules.unit == "block" and row["layer"] is not None else row["unit"]

    ordered = sorted(rows, key=lambda row: (key(row), row["name"]))
    return [_unit(name, rows=tuple(members), rules=rules) for name, members in groupby(ordered, key=key)]


def _unit(name: str, *, rows: tuple[Row, ...], rules: Rules) -> _Unit:
    weight = sum(row["parameters"] for row in rows)
    score = math.fsum((row["score"] or 0.0) * row["parameters"] for row in rows) / weight if weight else 0.0
    groups = sorted({group_of(row, ranking=rules.ranking) for row in rows})
    block = rules.unit == "block" and rows[0]["layer"] is not None
    return _Unit(group="block" if block else "+".join(groups), name=name, score=score, rows=rows)


def _fate(row: Row, *, ranked: Mapping[str, float], rules: Rules) -> Row:
    name = row["tensor"]
    t, reason = rules.forced(name), "included"
    if t is None:
        t, reason = ranked.get(name), "ranked"
    same = is_scored(row) and not changed(row)
    if same and (reason == "ranked" or number(row, "relative_change") == 0):  # a pattern moves the smallest change too
        t, reason = None, "unchanged"
    if t is None and reason != "unchanged":
        reason = "excluded" if matches(name, rules.exclude) else "below the cut"
    return {**row, "selected": t is not None, "t": 1.0 if t is None else t, "reason": reason}


def _warnings(rows: list[Row], *, rules: Rules) -> list[str]:
    """What a person should know about the outcome."""
    sets = [("freeze or method.restore", patterns) for patterns, _ in rules.sets]
    said = [
        f"method.{field}: the pattern {pattern!r} matches no tensor"
        for field, patterns in (("include", rules.include), ("exclude", rules.exclude), *sets)
        for pattern in patterns
        if not any(matches(row["tensor"], (pattern,)) for row in rows)
    ]
    if not any(row["selected"] for row in rows):
        same = not any(is_scored(row) and changed(row) for row in rows)
        why = "base and adapted model are identical" if same else "the budget or the patterns leave nothing"
        said.append(f"no tensor is restored: {why}; the result is the adapted model")
    elif rules.t == 0 and any(row["reason"] == "ranked" for row in rows):
        said.append("t = 0 replaces the chosen tensors by the base's: a partial t (0.3 to 0.7) has kept more of both")
    return said
