"""A request to merge a base and its experts in many ways, measure every merge, and publish the named ones alone."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from app.errors import SpearError
from app.recipes.catalogue import OURS, Leaf, leaves
from app.recipes.evaluation import Evaluation
from app.recipes.methods.base import MethodParameters
from app.recipes.parts import (
    LabelName,
    LabelValue,
    ModelRef,
    Part,
    Priority,
    QueueSeconds,
    RepoId,
    RuntimeSeconds,
)
from app.recipes.recipe import AnyMethod, Expert, Output, Recipe, Target, parse, reason
from app.recipes.scalars import Number, Whole

MAX_CELLS = 5000
SEED = "seed"
"""the parameter of random methods: cells that differ in nothing else are repetitions"""
_NOWHERE = "nobody/nothing"  # a recipe names a target; a cell is never published from its own
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
Ability = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
Settings = tuple[tuple[str, float | int], ...]
"""names and values of the grid's parameters, in the grid's order"""


@dataclass(frozen=True)
class Cell:
    """One merge of a study. `experts` are numbers in the recipe, from 0."""

    stage: int
    experts: tuple[int, ...]
    method: str
    settings: Settings

    @property
    def key(self) -> str:
        """For instance `2:0+1:ties:density=0.5,lambda=0.3`."""
        chosen = ",".join(f"{name}={value:.12g}" for name, value in self.settings)  # a seed has up to ten digits
        return ":".join((str(self.stage), "+".join(map(str, self.experts)), self.method, chosen))

    @property
    def constituents(self) -> tuple[int, ...]:
        """What Gain and OG compare with: 0 is the base, 1 the first expert. The base counts in stage 1 alone."""
        numbers = tuple(number + 1 for number in self.experts)
        return (0, *numbers) if self.stage == 1 else numbers

    @property
    def place(self) -> tuple[int, tuple[int, ...], str]:
        """All but the settings."""
        return self.stage, self.experts, self.method

    @property
    def unseeded(self) -> Settings:
        return tuple(pair for pair in self.settings if pair[0] != SEED)


class StudyMethod(Part):
    """A method, and the values of its parameters to try: every combination of the grid's lists is a merge."""

    method: AnyMethod
    grid: dict[str, Annotated[tuple[Number | Whole, ...], Field(min_length=1, max_length=100)]] = Field(
        {}, max_length=4, description="lists of numbers by the parameter's name: lambda, density, seed, ..."
    )
    label: Name | None = Field(None, description="the name in tables, where one method stands here twice")

    @property
    def name(self) -> str:
        return self.label or self.method.method_name()

    @property
    def points(self) -> Iterator[Settings]:
        names = list(self.grid)
        for values in product(*self.grid.values()):
            yield tuple(zip(names, values, strict=True))

    def at(self, settings: Settings) -> MethodParameters:
        """The method's parameters with these of the grid."""
        whole = {**self.method.model_dump(mode="json"), **dict(settings)}
        return type(self.method).model_validate(whole, strict=False)

    @model_validator(mode="after")
    def _points_allowed(self) -> Self:
        if self.method.method_name() == "spear":
            raise ValueError("spear scores one pair: its controls and its curve are part of a merge's own evaluation")
        known = {field.alias or name for name, field in type(self.method).model_fields.items()}
        if unknown := sorted(set(self.grid) - (known - {"name"})):
            raise ValueError(f"grid.{unknown[0]}: {self.method.method_name()} has no such parameter")
        for name, values in self.grid.items():
            if len(set(values)) < len(values):
                raise ValueError(f"grid.{name} holds a value twice")
        for settings in self.points:
            try:
                self.at(settings)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise ValueError(f"grid, at {dict(settings)}: {first['msg']}") from None
        return self


class StudyExpert(Expert):
    """A fine-tuned checkpoint, and the domain that it was trained for."""

    domain: Ability | None = Field(
        None, description="the `ability` of the domain tasks that tell what this expert gained"
    )


class StudyEvaluation(Evaluation):
    """What is measured of every merge; settings are chosen on `calibration` and reported on the other tasks.

    The group of a benchmark of this project stands for its tasks, each with a row of its own in every table.
    """

    @model_validator(mode="before")
    @classmethod
    def _groups_opened(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        parts = ("general", "domain", "calibration")
        return value | {name: _opened(value[name]) for name in parts if name in value}

    @model_validator(mode="after")
    def _no_gate(self) -> Self:
        if self.gate:
            raise ValueError("a study has no gate: publish names what is published")
        return self


class Publication(Part):
    """One merge of the study to be published by a merge job of its own, once the study has ended."""

    experts: tuple[RepoId, ...] = Field(min_length=1, max_length=8)
    method: Name = Field(description="the method's name or label")
    settings: Literal["chosen"] | dict[str, Number | Whole] = Field(
        "chosen", description="of the grid: those that calibration chose, or these"
    )
    target: Target


class Study(Part):
    """Base and experts, methods and grids, tasks by domain."""

    base: ModelRef
    experts: tuple[StudyExpert, ...] = Field(min_length=2, max_length=8)
    methods: tuple[StudyMethod, ...] = Field(min_length=1, max_length=16)
    stages: tuple[Literal[1, 2, 3], ...] = Field(
        (1, 2, 3), min_length=1, max_length=3,
        description="1: the base and one expert; 2: every pair of experts; 3: all experts",
    )
    evaluation: StudyEvaluation
    gain_reference: Literal["mean", "base"] | RepoId = Field(
        "mean", description="what Gain is measured against: the constituents' mean, the base, or one expert"
    )
    output: Output = Output()
    publish: tuple[Publication, ...] = Field((), max_length=16)
    labels: dict[LabelName, LabelValue] = Field({}, max_length=14)
    priority: Priority = 0
    max_queue_seconds: QueueSeconds = None
    max_runtime_seconds: RuntimeSeconds = None

    def cells(self) -> tuple[Cell, ...]:
        """Every merge, in order; a method that does not take so many experts has none in that stage."""
        return tuple(
            Cell(stage, chosen, one.name, settings)
            for stage in sorted(set(self.stages))
            for chosen in self._combinations(stage)
            for one in self.methods
            if _takes(one.method, len(chosen))
            for settings in one.points
        )

    def recipe(self, cell: Cell, *, target: Target | None = None) -> Recipe:
        """The recipe of one cell: what is measured is what a merge job by it would publish."""
        method = next(one for one in self.methods if one.name == cell.method)
        experts = [self.experts[number].model_dump(mode="json", exclude={"domain"}) for number in cell.experts]
        return Recipe(
            base=self.base, experts=tuple(Expert.model_validate(one, strict=False) for one in experts),
            method=method.at(cell.settings), target=target or Target(repo=_NOWHERE), output=self.output,
        )

    def named(self, publication: Publication) -> tuple[Cell, ...]:
        """The cells that a publication may mean: one, or all settings of which calibration chooses."""
        chosen = {self._number(repo) for repo in publication.experts}
        wanted = publication.settings if isinstance(publication.settings, dict) else None
        return tuple(
            cell for cell in self.cells()
            if set(cell.experts) == chosen and cell.method == publication.method
            and (wanted is None or dict(cell.settings) == wanted)
        )  # fmt: skip

    def _combinations(self, stage: int) -> Iterator[tuple[int, ...]]:
        count = len(self.experts)
        if stage == 3 and count == 2 and 2 in self.stages:
            return iter(())  # the only pair is all of them
        return combinations(range(count), {1: 1, 2: 2, 3: count}[stage])

    def _number(self, repo: str) -> int:
        return next((i for i, expert in enumerate(self.experts) if expert.repo == repo), -1)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        _refuse_twins("experts", [one.repo for one in self.experts])
        _refuse_twins("methods (give one a label)", [one.name for one in self.methods])
        if self.base.repo in {one.repo for one in self.experts}:
            raise ValueError(f"{self.base.repo} is the base: it is no expert of its own")
        if self.gain_reference not in ("mean", "base", *(one.repo for one in self.experts)):
            raise ValueError(f"gain_reference {self.gain_reference} is not an expert")
        return self

    @model_validator(mode="after")
    def _domains_measured(self) -> Self:
        measured = {task.ability for task in self.evaluation.domain}
        for expert in self.experts:
            if expert.domain and expert.domain not in measured:
                raise ValueError(f"no domain task has the ability {expert.domain} (expert {expert.repo})")
        return self

    @model_validator(mode="after")
    def _cells_allowed(self) -> Self:
        found = self.cells()
        if not found:
            raise ValueError("no method takes the number of experts of these stages")
        if len(found) > MAX_CELLS:
            raise ValueError(f"these are {len(found)} merges; at most {MAX_CELLS} are allowed")
        searched = any(len(_unseeded(one)) > 1 for one in self.methods)
        if searched and self.evaluation.calibration is None:
            raise ValueError("evaluation.calibration is needed: of several settings, one is chosen on it")
        for cell in {cell.place: cell for cell in found}.values():
            try:
                self.recipe(cell)
            except ValidationError as error:
                raise ValueError(reason(error.errors(include_url=False)[0])) from None
        return self

    @model_validator(mode="after")
    def _publications_named(self) -> Self:
        for number, one in enumerate(self.publish):
            if not self.named(one):
                raise ValueError(f"publish[{number}] names no merge of this study")
        targets = [(one.target.repo.lower(), one.target.branch) for one in self.publish]
        if len(set(targets)) < len(targets):
            raise ValueError("publish names one target twice")
        return self


def _opened(part: Any) -> Any:
    """Tasks, or sets of tasks, with the tasks of our own groups in place of the groups."""
    if isinstance(part, dict):
        return {name: _opened(tasks) for name, tasks in part.items()}
    if not isinstance(part, list | tuple):
        return part
    return [one for task in part for one in _each(task)]


def _each(task: Any) -> Iterator[Any]:
    name = task.get("task") if isinstance(task, dict) else None
    found: tuple[Leaf, ...] = ()
    with suppress(SpearError):  # an unknown task is refused with all others, where data sets are looked up
        found = leaves(name) if isinstance(name, str) else ()
    if not found or not all(leaf.yaml.startswith(OURS) for leaf in found):
        yield task
        return
    for leaf in found:
        yield {**task, "task": leaf.name}


def parse_study(body: Any) -> Study:
    """As `parse_recipe`, for a study."""
    return parse(Study, body)


def _refuse_twins(what: str, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what}: {twice[0]} stands there twice")


def _takes(method: MethodParameters, count: int) -> bool:
    return method.min_experts <= count <= (method.max_experts or count)


def _unseeded(one: StudyMethod) -> set[Settings]:
    return {tuple(pair for pair in settings if pair[0] != SEED) for settings in one.points}
