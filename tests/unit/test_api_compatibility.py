"""The snapshot of the API's description, and what counts as breaking it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from app.api.compatibility import breaks, operations
from app.api.openapi import describe

SNAPSHOT = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return describe()


def test_nobody_who_calls_by_the_snapshot_is_broken(now):
    assert breaks(json.loads(SNAPSHOT.read_text()), now) == []


def test_every_operation_has_an_id_a_summary_problems_and_examples_of_its_inputs(now):
    ids = [operation["operationId"] for _, _, operation in operations(now)]
    assert len(ids) == len(set(ids))
    for path, _, operation in operations(now):
        assert operation["summary"], path
        assert operation["description"], path
        assert {"4XX", "5XX"} <= set(operation["responses"]), path
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], path
        for parameter in operation.get("parameters", []):
            assert not parameter["required"] or "example" in parameter, (path, parameter["name"])


def changed(document: dict[str, Any], change) -> list[str]:
    new = copy.deepcopy(document)
    change(new)
    return breaks(document, new)


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    return document["components"]["schemas"][name]


BREAKING = {
    "a path": lambda d: d["paths"].pop("/methods"),
    "a method": lambda d: d["paths"]["/merges"].pop("post"),
    "a status": lambda d: d["paths"]["/merges"]["post"]["responses"].pop("202"),
    "a parameter": lambda d: d["paths"]["/merges"]["get"]["parameters"].pop(0),
    "a parameter that is needed": lambda d: d["paths"]["/merges"]["get"]["parameters"].append(
        {"in": "query", "name": "team", "required": True, "schema": {"type": "string"}}
    ),
    "a field of an answer": lambda d: schema(d, "JobView")["properties"].pop("attempt"),
    "a field that may be missing": lambda d: schema(d, "JobView")["required"].remove("attempt"),
    "a field of a request": lambda d: schema(d, "Recipe")["properties"].pop("labels"),
    "a field that is needed": lambda d: schema(d, "Recipe")["required"].append("labels"),
    "a field of a part": lambda d: schema(d, "Target")["properties"].pop("branch"),
    "a value of an enum": lambda d: schema(d, "Status")["enum"].remove("cancelling"),
    "a value of a code": lambda d: schema(d, "Code")["enum"].remove("target_busy"),
    "another type": lambda d: schema(d, "JobView")["properties"]["attempt"].update(type="string"),
    "a narrower bound": lambda d: schema(d, "Recipe")["properties"]["experts"].update(maxItems=2),
    "a new bound": lambda d: schema(d, "Target")["properties"]["repo"].update(maxLength=3),
    "another content": lambda d: d["paths"]["/methods"]["get"]["responses"]["200"].update(content={}),
}
HARMLESS = {
    "a path": lambda d: d["paths"].update({"/new": {"get": {"responses": {}}}}),
    "a field of an answer": lambda d: schema(d, "JobView")["properties"].update(new={"type": "string"}),
    "a field of a request": lambda d: schema(d, "Recipe")["properties"].update(new={"type": "string"}),
    "a field that is needed no more": lambda d: schema(d, "Recipe")["required"].remove("method"),
    "a value of an enum": lambda d: schema(d, "Code")["enum"].append("new_code"),
    "a parameter": lambda d: d["paths"]["/merges"]["get"]["parameters"].append(
        {"in": "query", "name": "team", "required": False, "schema": {"type": "string"}}
    ),
    "a wider bound": lambda d: schema(d, "Recipe")["properties"]["experts"].update(maxItems=64),
    "words": lambda d: schema(d, "Recipe").update(description="other words"),
}


@pytest.mark.parametrize("change", BREAKING.values(), ids=BREAKING)
def test_what_breaks_callers_is_found(now, change):
    assert changed(now, change)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_callers_do_not_notice_passes(now, change):
    assert changed(now, change) == []
