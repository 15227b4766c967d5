"""The catalogue of merge methods."""

import inspect
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from app.api.problems import RESPONSES, explain
from app.errors import Code
from app.recipes import METHODS

router = APIRouter(tags=["catalogue"], responses=RESPONSES)


class MethodView(BaseModel):
    """A merge method; `parameters` is a JSON Schema, `max_experts` null where there is no limit but the recipe's."""

    name: str
    description: str | None
    min_experts: int
    max_experts: int | None
    parameters: dict[str, Any]


class MethodPage(BaseModel):
    """The catalogue."""

    data: list[MethodView]


class ProblemType(BaseModel):
    """What is always true of a problem of this code."""

    code: Code
    title: str
    status: int
    retryable: bool
    hint: str


@router.get("/methods", operation_id="list_methods")
def get_methods() -> MethodPage:
    """Every method with the JSON Schema of its parameters."""
    return MethodPage(data=[
        MethodView(
            name=name, description=inspect.getdoc(method), min_experts=method.min_experts,
            max_experts=method.max_experts, parameters=method.model_json_schema(),
        )
        for name, method in METHODS.items()
    ])  # fmt: skip


@router.get(
    "/problems/{code}", operation_id="explain_problem", response_model=ProblemType,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_problem(*, code: str, accept: Annotated[str | None, Header()] = None) -> Any:
    """What a problem's `type` means; as a page for people where the reader asks for `text/html`."""
    found = explain(code)
    return HTMLResponse(_page(found)) if "text/html" in (accept or "") else found


def _page(found: dict[str, Any]) -> str:
    again = "The same request may succeed later." if found["retryable"] else "It will not succeed without a change."
    said = [found["title"], f"HTTP status {found['status']}. {again}", found["hint"]]
    body = "".join(f"<p>{escape(text)}</p>" for text in said if text)
    return f'<!doctype html><html lang="en"><title>{found["code"]}</title><h1>{found["code"]}</h1>{body}</html>'
