"""The cache of spectra on a real Postgres: its key, its bound, and what a change of the algorithm does to it."""

import base64

import pytest
from sqlalchemy import text

from app.jobs.spectra import KEY, DrawnSpectra, Spectra
from app.jobs.tables import Document


def record(tensor: str, *, digest: str = "sha256:1", algorithm: str = "new", precision: str = "exact", size: int = 80):
    return {
        "digest": digest, "tensor": tensor, "algorithm": algorithm, "precision": precision, "device_class": "cpu",
        "count": size // 8, "data": base64.b64encode(bytes(size)).decode(),
    }  # fmt: skip


def keys(spectra: Spectra, *digests: str) -> set[tuple[str, ...]]:
    return {tuple(found[name] for name in KEY) for found in spectra.find(digests)}


def test_each_part_of_the_key_tells_records_apart(jobs):
    spectra = Spectra(jobs.database, max_bytes=10**6)
    others = {"digest": "sha256:2", "tensor": "b", "precision": "single", "device_class": "cuda"}
    every = [record("a"), *(record("a") | {name: value} for name, value in others.items())]
    spectra.add(every)
    assert len(keys(spectra, "sha256:1", "sha256:2")) == len(every)


def test_a_record_of_an_older_algorithm_makes_room_for_the_new_one(jobs):
    spectra = Spectra(jobs.database, max_bytes=10**6)
    spectra.add([record("a", algorithm="old"), record("b", algorithm="old"), record("a", precision="single")])
    spectra.add([record("a")])
    found = {(tensor, algorithm, precision) for _, tensor, algorithm, precision, _ in keys(spectra, "sha256:1")}
    assert found == {("a", "new", "exact"), ("a", "new", "single"), ("b", "old", "exact")}


def test_an_older_algorithm_named_the_device_otherwise_and_makes_room_as_well(jobs):
    spectra = Spectra(jobs.database, max_bytes=10**6)
    spectra.add([record("a", algorithm="old"), record("a") | {"device_class": "cpu-00000000"}])
    spectra.add([record("a") | {"device_class": "cpu-1a2b3c4d"}])
    found = {(algorithm, device) for _, _, algorithm, _, device in keys(spectra, "sha256:1")}
    assert found == {("new", "cpu-00000000"), ("new", "cpu-1a2b3c4d")}


def test_the_bound_holds_and_the_oldest_use_goes_first(jobs):
    spectra = Spectra(jobs.database, max_bytes=1000)
    for number in range(20):
        spectra.add([record("a", digest=f"sha256:{number:02}"), record("b", digest=f"sha256:{number:02}")])
    used = {"sha256:00", "sha256:07"}
    for digest in sorted(used):
        assert len(list(spectra.find([digest]))) == 2
    assert spectra.trim() == 40 - 1000 // 80
    assert spectra.trim() == 0
    with jobs.database.transaction() as session:
        rows = session.execute(text("SELECT digest, octet_length(data) FROM spectra")).all()
    assert sum(size for _, size in rows) == 960
    assert {digest for digest, _ in rows} == used | {f"sha256:{number}" for number in (16, 17, 18, 19)}


@pytest.mark.parametrize("tensor", ["plain.weight", "{", "a,b", '"quoted"', "back\\slash", "{µ'JgSÅJº2°#}", "é"])
def test_any_name_finds_its_own_tensor_and_no_other(jobs, tensor):
    job_id = jobs.submit()
    entry = {"count": 2, "shape": [2, 2], "base": [2.0, 1.0], "adapted": [2.0, 1.0]}
    drawn = {"tensors": {tensor: entry}, "ranks": {"2": [1, 2]}}
    with jobs.database.transaction() as session:
        session.add(Document(job_id=job_id, name="spectra", body=drawn))
        session.add(Document(job_id=job_id, name="report", body={"spectra": []}))
    spectra = DrawnSpectra(jobs.database)
    assert spectra.find(job_id, tensor) == entry | {"ranks": [1, 2], "merged": None}
    assert spectra.find(job_id, "another" + tensor) is None
