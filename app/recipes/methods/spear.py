"""SPEAR-MM: score, select, restore (arXiv 2511.08500; a reconstruction, see docs/methods/spear.md)."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.recipes.methods.base import MethodParameters
from app.recipes.scalars import Flag, Number, Text, Whole

POLICY_FRACTIONS = {"conservative": 0.10, "balanced": 0.25, "aggressive": 0.50, "auto": 0.25}
"""for `auto`, the share of the score-selected set that the search tries as a start"""
MODULE_TYPES = ("q", "k", "v", "o", "gate", "up", "down")


class ScoreWeights(BaseModel):
    """Weights of the percentile ranks in the score; they are normalised to a sum of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    snr: Number = Field(
        0.0, ge=0,
        description="how noise is told from signal in a spectrum: mp_median by the Marchenko-Pastur law at "
        "its median, spectrum by the median value itself",
    )
    relative_change: Number = Field(0.0, ge=0)
    swci: Number = Field(0.5, ge=0)
    svdr: Number = Field(0.5, ge=0)

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.snr + self.relative_change + self.swci + self.svdr <= 0:
            raise ValueError("at least one weight must be above zero")
        return self


class RestoreSet(BaseModel):
    """Tensors that are restored to a `t` of their own, whatever their score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patterns: tuple[Text, ...] = Field(min_length=1, description="shell-style patterns of tensor names")
    t: Number = Field(ge=0, le=1, description="0 is the base, 1 the adapted model")


class AutoSearch(BaseModel):
    """How `policy: auto` looks for the strengths of all weights, on the recipe's calibration tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Literal["retention", "gain", "frontier"] = Field(
        "retention",
        description="what to have most of, while the other side stays at `least` or above; frontier: retention at "
        "several gains kept, of which the one at `least` is merged",
    )
    least: Number = Field(0.9, ge=0, le=2, description="of gain kept; of retention where the objective is gain")
    most: Number = Field(
        2.0, ge=1, le=2,
        description="the largest strength: above 1 lies beyond the adapted model, where weights that forget little may "
        "have more of the gain",
    )
    budget: Whole = Field(60, ge=12, le=10_000, description="evaluations of the calibration set, at most")
    method: Literal["gradient", "groups"] | None = Field(
        None,
        description="gradient: one strength per weight, by slopes, which needs tasks that are losses; groups: attention"
        " and MLP by depth, embedding, head and norms, split where it pays. Without it, gradient where that can be",
    )


class SpearParameters(MethodParameters):
    """Scores every projection matrix of base and adapted model and moves the chosen ones back towards the base.

    `score` = weighted mean of percentile ranks of SNR, SWCI = SNR · ‖Δ‖/‖W_b‖ and SVDR; the top share by `policy`,
    `fraction` or a budget is restored by SLERP(W_b, W_a; t) with t = 0 the base. Everything else is the adapted
    model's, byte for byte. Source: arXiv 2511.08500, whose equations are not public: a reconstruction.
    """

    max_experts: ClassVar[int | None] = 1

    name: Literal["spear"] = "spear"
    policy: Literal["conservative", "balanced", "aggressive", "auto"] = Field(
        "balanced",
        description="share of each ranking group to restore: 10, 25 or 50 %; auto: a strength for every weight of the "
        "model, found on `evaluation.calibration`",
    )
    auto: AutoSearch | None = Field(None, description="how `policy: auto` searches")
    fraction: Number | None = Field(None, gt=0, le=1, description="the share itself, in place of a policy")
    budget_bytes: Whole | None = Field(None, ge=1, description="restore the best-scored tensors up to so many bytes")
    budget_parameters: Whole | None = Field(None, ge=1, description="the same, counted in parameters")
    t: Number = Field(0.5, ge=0, le=1, description="0 is the base, 1 the adapted model")
    t_top: Number | None = Field(
        None, ge=0, le=1, description="grades t by score: t itself at score 0, t_top at score 1, linear in between"
    )
    precision: Literal["exact", "fast"] = Field(
        "exact", description="fast estimates the spectra, for ranking, and returns to exact where it is too uncertain"
    )
    snr: Literal["mp_median", "spectrum"] = "mp_median"
    snr_reference: Literal["base", "adapted", "mean"] = "base"
    svdr: Literal["drop", "abs", "nuclear", "rank", "signed"] = "drop"
    weights: ScoreWeights = ScoreWeights()
    ranking: Literal["module_type", "global"] = "module_type"
    unit: Literal["tensor", "block"] = "tensor"
    modules: tuple[Text, ...] = Field(MODULE_TYPES, min_length=1, description="module types, or patterns of names")
    embedding: Flag = Field(default=False, description="score the input embedding as a group of its own")
    head: Flag = Field(default=False, description="score the output head as a group of its own")
    include: tuple[Text, ...] = Field((), description="patterns of tensor names restored whatever their score")
    exclude: tuple[Text, ...] = Field((), description="patterns of tensor names never restored")
    freeze: tuple[Text, ...] = Field((), description="patterns of tensor names that become the base's, byte for byte")
    show: tuple[Text, ...] = Field(
        (), max_length=16, description="patterns of scored tensors whose spectra the report shows: the first 12 of them"
    )
    restore: tuple[RestoreSet, ...] = Field((), max_length=64, description="sets with a t of their own; the first wins")

    @model_validator(mode="after")
    def _fast_within_types(self) -> Self:
        if self.precision == "fast" and self.ranking == "global":
            raise ValueError("fast estimates can be compared between tensors of one shape only: rank by module_type")
        return self

    @model_validator(mode="after")
    def _auto_alone(self) -> Self:
        if self.auto and self.policy != "auto":
            raise ValueError("auto says how policy 'auto' searches: the policy is another one")
        ruled = ("include", "exclude", "freeze", "restore", "t_top")
        given = [name for name in ruled if getattr(self, name)]
        if self.policy == "auto" and given:
            raise ValueError(f"policy 'auto' finds the strength of every weight itself: leave out {given[0]}")
        return self

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        sizes = ("policy", "fraction", "budget_bytes", "budget_parameters")
        given = [name for name in sizes if getattr(self, name) != type(self).model_fields[name].default]
        if len(given) > 1:
            raise ValueError(f"give only one of {' and '.join(given)}")
        return self

    @property
    def searching(self) -> AutoSearch | None:
        """How to search, where the policy asks for it."""
        return (self.auto or AutoSearch()) if self.policy == "auto" else None

    @property
    def share(self) -> float:
        """The share of each ranking group to restore, where no budget is given."""
        return self.fraction if self.fraction is not None else POLICY_FRACTIONS[self.policy]
