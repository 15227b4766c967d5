"""The running service and its real worker under hostile checkpoints: typed refusals, no crash, nothing left behind."""

import time
from pathlib import Path

import pytest
import torch

from app.client import ApiError
from tests.fixtures.checkpoints import checkpoint
from tests.fixtures.hostile import ADAPTERS, CONFIGS, HEADERS, INDEXES, Files
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from tests.fixtures.service import Service

REFUSED = (
    (HEADERS, "two tensors overlap"), (HEADERS, "a hole in the middle"), (HEADERS, "a header of 200 MB"),
    (HEADERS, "a tensor twice"), (HEADERS, "a bomb of lists"), (HEADERS, "200 001 tensors"),
    (HEADERS, "a product of 2^64 + 64"), (INDEXES, "a shard above"), (INDEXES, "a shard that is not there"),
    (INDEXES, "a tensor in two shards"), (CONFIGS, "code within"), (CONFIGS, "10^30 layers"),
    (CONFIGS, "a giant tokenizer"), (ADAPTERS, "a rank beyond the weight's"),
)  # fmt: skip
NORM = "model.norm.weight"


def folder_of(files: Files, folder: Path) -> Path:
    folder.mkdir()
    for path, data in files.items():
        (folder / path).write_bytes(data)
    return folder


def files_of(service: Service) -> set[Path]:
    """What lies in the data directory outside of the databases, logs and the cache of blobs."""
    return {path for path in (service.home / "jobs").rglob("*") if path.is_file()}


def test_hostile_repositories_are_refused_and_the_service_goes_on(service: Service, tmp_path):
    base = service.push("sane", folder_of(checkpoint(shards=2, seed=1), tmp_path / "sane"))
    workers = service.worker_pids()
    around = set(service.home.parent.iterdir())
    for number, (table, name) in enumerate(REFUSED):
        code, files = table[name]()
        repo = service.push(f"hostile{number}", folder_of(files, tmp_path / f"hostile{number}"))
        with service.client() as client, pytest.raises(ApiError) as caught:
            client.submit(service.recipe(base, repo, f"from-hostile{number}"))
        assert caught.value.code == code, name
    assert service.worker_pids() == workers
    assert files_of(service) == set()
    assert set(service.home.parent.iterdir()) == around


@pytest.mark.parametrize(("number", "value"), [(0, float("nan")), (1, float("inf")), (2, float("-inf"))])
def test_values_that_are_not_finite_fail_the_job_by_name(service: Service, pair, base_model, tmp_path, number, value):
    workers = service.worker_pids()
    bad = make_checkpoint(tmp_path / "bad", seed=30 + number, like=base_model)

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3] = value
        return tensor

    rewrite_tensor(bad, NORM, poison)
    repo = service.push(f"not-finite{number}", bad)
    job = service.run(service.recipe(pair[0], repo, f"from-not-finite{number}", method={"name": "linear"}))
    assert (job["status"], job["error"]["code"]) == ("failed", "nonfinite_tensor")
    assert NORM in job["error"]["message"]
    assert repo in job["error"]["message"]
    assert service.worker_pids() == workers
    assert all(Path(f"/proc/{pid}").exists() for pid in workers)
    end = time.monotonic() + 10  # the directory goes after the job has ended
    while files_of(service):
        assert time.monotonic() < end
        time.sleep(0.05)
