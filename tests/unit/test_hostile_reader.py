"""Hostile checkpoints before the worker's reader: each is refused by its code, and nothing is written anywhere."""

import pytest

from app.errors import SpearError
from tests.fixtures.hostile import ADAPTERS, CONFIGS, HEADERS, INDEXES
from worker.checkpoints.reader import Checkpoint

READ = HEADERS | INDEXES


def test_the_table_is_long_enough():
    assert len(HEADERS) + len(INDEXES) + len(CONFIGS) + len(ADAPTERS) >= 120


@pytest.mark.parametrize("case", READ)
def test_a_hostile_file_is_refused_by_its_code(tmp_path, case):
    code, files = READ[case]()
    folder = tmp_path / "inputs" / "0"
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpearError) as caught:
        Checkpoint.open(folder)
    assert caught.value.code is code, caught.value.message
    assert caught.value.names["file"] in files
    assert len(caught.value.message) < 1_000
    assert caught.value.message.isprintable()
    assert sorted(tmp_path.rglob("*")) == before
