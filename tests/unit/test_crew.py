"""Points measured beside each other: the bytes of one after the other, and what a process that dies comes to."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from test_search_stage import AUTO, file, merging, pair, sources  # noqa: F401  (fixtures)
from transformers import AutoModelForCausalLM

from app.errors import Code, SpearError
from worker.child import run_child
from worker.evaluation.crew import Crew, affordable
from worker.evaluation.slopes import SLOPED_TOKENS
from worker.pipeline.searching import batch_bytes

CHOICE = {"general": [file("general_cal"), file("choice_cal", "multiple_choice")], "domain": [file("domain_cal")]}


def squared(number):
    time.sleep(0.02 * (number % 3))
    return number * number, os.getpid()


def test_results_come_in_the_order_of_the_items_from_several_processes():
    with Crew(size=2) as crew:
        crew.start(squared)
        found = list(crew.each(range(20)))
        again = list(crew.each([3]))
    assert [value for value, _ in found] == [number * number for number in range(20)]
    assert len({process for _, process in found} - {os.getpid()}) == 2
    assert again[0][0] == 9
    assert not any(_lives(process) for _, process in found)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_is_this_one():
    with Crew(size=1) as crew:
        crew.start(squared)
        assert {process for _, process in crew.each(range(4))} == {os.getpid()}


def failing(how):
    if how == "expected":
        raise SpearError(Code.TASK_UNSUPPORTED, "no such thing", pointer="/here", task="it")
    if how == "memory":
        raise MemoryError("of 3 bytes")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "ended":
        os._exit(7)
    raise ValueError("a bug")


@pytest.mark.parametrize(
    ("how", "code"),
    [("expected", Code.TASK_UNSUPPORTED), ("memory", Code.OUT_OF_MEMORY), ("killed", Code.OUT_OF_MEMORY),
     ("ended", Code.COMPUTE_CRASHED)],
)  # fmt: skip
def test_what_goes_wrong_in_a_process_is_told_here(how, code):
    with Crew(size=2) as crew:
        crew.start(failing)
        with pytest.raises(SpearError) as caught:
            list(crew.each([how]))
    assert caught.value.code == code
    if how == "expected":
        assert (caught.value.pointer, caught.value.names["task"]) == ("/here", "it")


def test_a_bug_in_a_process_is_one_here_with_its_trace():
    with Crew(size=2) as crew:
        crew.start(failing)
        with pytest.raises(RuntimeError, match="a bug"):
            list(crew.each(["bug"]))


def test_signs_of_life_are_heard_while_the_work_lasts():
    heard = []
    crew = Crew(size=2, told=lambda: heard.append(os.getpid()))

    def work(_):
        for _ in range(15):
            crew.beat()
            time.sleep(0.1)

    with crew:
        crew.start(work)
        list(crew.each([0]))
    assert 1 <= len(heard) <= 3
    assert set(heard) == {os.getpid()}


def test_there_are_no_more_processes_than_memory_has_room_for():
    assert affordable(4, nbytes=1) == 4
    assert affordable(4, nbytes=1 << 60) == 1
    assert affordable(4, nbytes=1, shared=1 << 60) == 1


def test_a_backward_pass_is_counted_with_the_activations_that_it_holds(pair):  # noqa: F811
    model = AutoModelForCausalLM.from_pretrained(pair[0]).requires_grad_(True)  # noqa: FBT003
    held, width, length = {}, 8, 32

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        loss = model(input_ids=torch.zeros(width, length, dtype=torch.long)).logits.logsumexp(-1).sum()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    activations = sum(nbytes for place, nbytes in held.items() if place not in weights)
    told = batch_bytes(model, slopes=True) * width * length / SLOPED_TOKENS
    assert 0.5 * told < activations < told, (activations, told)
    assert loss.requires_grad
    assert batch_bytes(model, slopes=False) <= batch_bytes(model, slopes=True)


def made(folder, pair, sources, *, threads, **changes):  # noqa: F811
    """A merge by the real computing child; what it wrote."""
    folder.mkdir()
    task = merging(folder, pair, sources, **changes).model_copy(update={"threads": threads})
    return ran(task, folder), task


def ran(task, folder):
    said = []
    (folder / "task.json").write_text(task.model_dump_json())
    run_child(folder / "task.json", threads=task.threads, hear=said.append, check=lambda: None, kernels=folder / "code")
    # base, adapted model and result are asked by one process with all its threads: equal but for the last digits
    found = json.loads((task.output / "report.json").read_text())["evaluation"]
    sheets = (task.work_dir / "sheets.journal").read_text().split("\n\n")
    return {
        "journal": (task.work_dir / "search.journal").read_bytes(), "search": found["search"],
        "points": [point for point in found["points"] if point["on"] == "calibration"],
        "controls": sheets[3 * len(task.evaluation.tasks) :],
        "decisions": json.loads((task.output / "merge_manifest.json").read_text())["decisions"], "said": said,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"calibration": CHOICE, "controls": False}], ids=["gradient", "groups"])
def test_two_processes_write_the_bytes_of_one(tmp_path, pair, sources, changes):  # noqa: F811
    one, _ = made(tmp_path / "one", pair, sources, threads=1, **changes)
    two, task = made(tmp_path / "two", pair, sources, threads=2, **changes)
    assert one["search"]["method"] == ("groups" if changes else "gradient")
    for what in ("journal", "decisions", "search", "points", "controls"):
        assert two[what] == one[what], what
    counts = [len([m for m in found["said"] if m["kind"] == "step"]) for found in (one, two)]
    assert counts[0] == counts[1]
    if changes:
        return
    # killed in the middle of the search: what was measured stays, and the end is the same
    lines = two["journal"].splitlines(keepends=True)
    (task.work_dir / "search.journal").write_bytes(b"".join(lines[: len(lines) // 2]) + b'\n{"key": "torn')
    again = ran(task, tmp_path / "two")
    assert (again["decisions"], again["search"], again["points"]) == (two["decisions"], two["search"], two["points"])
    assert AUTO["auto"]["budget"] >= again["search"]["spent"]


def test_a_child_that_is_stopped_leaves_nothing_of_its_crew(tmp_path, pair, sources):  # noqa: F811
    task, found = merging(tmp_path, pair, sources).model_copy(update={"threads": 2}), []
    (tmp_path / "task.json").write_text(task.model_dump_json())
    others = set(_below(os.getpid()))  # servers of other tests

    def hear(message):
        if message["kind"] == "step" and not found:
            found.extend(set(_below(os.getpid())) - others)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_child(tmp_path / "task.json", threads=2, hear=hear, check=lambda: None, kernels=tmp_path / "code")
    assert len(found) >= 3, "the child and two of its own"
    assert not [one for one in found if Path(f"/proc/{one}").exists()]  # a zombie is still there


def _below(process):
    """The ids of all processes that a process has started, and those have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    own = parents.get(process, [])
    return [*own, *(one for each in own for one in _below(each))]
