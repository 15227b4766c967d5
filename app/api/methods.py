"""The catalogue of merge methods."""

import inspect
from typing import Any

from fastapi import APIRouter

from app.api.problems import RESPONSES, explain
from app.recipes import METHODS

router = APIRouter(tags=["catalogue"], responses=RESPONSES)


@router.get("/methods", operation_id="list_methods")
def get_methods() -> dict[str, Any]:
    """Every method with the JSON Schema of its parameters."""
    return {
        "data": [
            {
                "name": name, "description": inspect.getdoc(method), "min_experts": method.min_experts,
                "max_experts": method.max_experts, "parameters": method.model_json_schema(),
            }
            for name, method in METHODS.items()
        ]
    }


@router.get("/problems/{code}", operation_id="explain_problem")
def get_problem(code: str) -> dict[str, Any]:
    """What a problem's `type` means."""
    return explain(code)
