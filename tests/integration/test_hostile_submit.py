"""Hostile checkpoints through POST /merges on the real local Hub: each refused by its code before it is queued."""

import pytest

from tests.fixtures.hostile import ADAPTERS, CONFIGS, HEADERS, INDEXES

BOMBS = ("200 001 tensors", "a bomb of lists", "a bomb of metadata", "a million lists", "a giant tokenizer",
         "an index of five million commas")  # fmt: skip
TABLES = {"header": HEADERS, "index": INDEXES, "config": CONFIGS, "adapter": ADAPTERS}
CASES = [
    pytest.param(table, name, id=f"{table}: {name}")
    for table, cases in TABLES.items()
    for name in cases
    if name not in BOMBS
]


@pytest.mark.parametrize(("table", "name"), CASES)
def test_a_hostile_expert_is_refused_by_its_code(api, table, name):
    code, files = TABLES[table][name]()
    repo = api.push("hostile", files)
    answer = api.submit(api.recipe(experts=[{"repo": repo}]))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code), problem
    assert problem["names"]["repo"] == repo
    assert problem["errors"][0]["pointer"].startswith("/experts/0")
    assert len(problem["detail"]) < 2_000
    assert api.call("GET", "/merges").json()["data"] == []


@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [
        ("two tensors overlap", "model.safetensors", True), ("a hole in the middle", "model.safetensors", True),
        ("a header of 200 MB", "model.safetensors", False),
        ("a shard that is not there", "model.safetensors.index.json", True),
        ("a tensor in two shards", "model-00002-of-00002.safetensors", True),
        ("a shard above", "model.safetensors.index.json", True),
    ],
)  # fmt: skip
def test_the_file_and_the_tensor_at_fault_are_named(api, name, file, tensor):
    _, files = (HEADERS | INDEXES)[name]()
    problem = api.submit(api.recipe(base={"repo": api.push("hostile", files)})).json()
    assert problem["names"]["file"] == file
    assert ("tensor" in problem["names"]) == tensor
    assert problem["errors"][0]["pointer"] == "/base/repo"
