"""The body of a request that brings a mergekit YAML in place of base, experts and method."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.errors import Code, SpearError
from app.recipes.mergekit.document import MAX_CHARACTERS
from app.recipes.mergekit.places import Translation
from app.recipes.mergekit.translation import translate
from app.recipes.parts import LabelName, LabelValue, Priority, QueueSeconds, RuntimeSeconds
from app.recipes.recipe import FORMS, Output, Recipe, Target, parse_recipe


class MergekitForm(BaseModel):
    """A mergekit configuration as it is, and where its result goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="MergekitRecipe")

    mergekit: str = Field(max_length=MAX_CHARACTERS, description="the text of the YAML")
    target: Target
    output: Output = Output()
    labels: dict[LabelName, LabelValue] = Field({}, max_length=16)
    priority: Priority = 0
    max_queue_seconds: QueueSeconds = None
    max_runtime_seconds: RuntimeSeconds = None


def _form(body: Any) -> str:
    given = isinstance(body, MergekitForm) or (isinstance(body, dict) and "mergekit" in body)
    return FORMS[1] if given else FORMS[0]


AnyForm = Annotated[
    Annotated[Recipe, Tag(FORMS[0])] | Annotated[MergekitForm, Tag(FORMS[1])], Discriminator(_form)
]
"""The body of `POST /merges`: a recipe, or a mergekit YAML."""


@contextmanager
def written(form: Recipe | MergekitForm) -> Iterator[Recipe]:
    """The recipe that was asked for in either form; within, errors about it point at where the caller wrote it."""
    if isinstance(form, Recipe):
        yield form
        return
    translation = translate(form.mergekit)
    try:
        yield parse_recipe(_body(form, translation), strict=False)  # to mergekit a truth is a number
    except SpearError as error:
        raise translation.explain(error) from None


def _body(form: MergekitForm, translation: Translation) -> dict[str, Any]:
    output = form.output.model_dump(mode="json", exclude_unset=True)
    for name in ("dtype", "out_dtype") if output.get("dtype") else ():
        place = translation.places.get("/method/dtype" if name == "dtype" else "/output/dtype")
        if place:
            raise SpearError(
                Code.INVALID_RECIPE, f"/output/dtype: the YAML has a dtype of its own, in line {place.line}",
                pointer="/output/dtype",
            )  # fmt: skip
    return translation.body | {
        "target": form.target.model_dump(mode="json"), "labels": form.labels, "priority": form.priority,
        "max_queue_seconds": form.max_queue_seconds, "max_runtime_seconds": form.max_runtime_seconds,
        "output": translation.body.get("output", {}) | output,
    }  # fmt: skip
