"""Downloading from a real Hub server: verified, resumed, shared between jobs, stopped, never out of its directory."""

import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import Code, SpearError
from app.hub.blobs import BlobCache, digest_file
from app.hub.client import Hub
from app.hub.download import Stopped, fetch
from app.hub.pins import RemoteFile, pin
from tests.fixtures.checkpoints import checkpoint, push, sha256

BIG = random.Random(5).randbytes(3_000_000)
BIG_PATH = "model.safetensors$"


class Shelf:
    """A private repository with a large file, a cache, and a job's directory."""

    def __init__(self, local_hub, tmp_path) -> None:
        self.server = local_hub
        self.name, self.token = local_hub.fresh_user("down")
        self.repo = f"{self.name}/model"
        self.api = local_hub.api(self.token)
        self.hub = Hub(local_hub.endpoint, self.token, timeout_seconds=5)
        self.cache = BlobCache(tmp_path / "cache", max_bytes=10**9)
        self.into = tmp_path / "input"
        self.files = {**checkpoint(), "model.safetensors": BIG, "empty.txt": b"", "sub/notes.txt": b"hello"}
        push(self.api, self.repo, self.files, private=True)
        self.pin = pin(self.hub, self.repo, "main")
        self.seen: list[int] = []
        local_hub.clear_requests()

    def fetch(self, **changes):
        options = {
            "cache": self.cache, "into": self.into, "progress": self.seen.append, "stop": lambda: False, "workers": 3,
            **changes,
        }
        hub, files = options.pop("hub", self.hub), options.pop("files", self.pin.files)
        return fetch(hub, options.pop("pin", self.pin), files, **options)

    def asked(self, pattern: str = BIG_PATH.rstrip("$")):
        return [r for r in self.server.requests() if r["path"].endswith(pattern)]


@pytest.fixture
def shelf(local_hub, tmp_path):
    shelf = Shelf(local_hub, tmp_path)
    yield shelf
    shelf.hub.close()


def refused(code, call) -> SpearError:
    with pytest.raises(SpearError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def test_every_file_arrives_whole_with_its_digest(shelf):
    digests = shelf.fetch()
    for path, data in shelf.files.items():
        assert (shelf.into / path).read_bytes() == data
    assert digests["model.safetensors"] == sha256(BIG)
    assert digests["config.json"].startswith("git:")
    assert all(digest_file(shelf.into / path, digest) == digest for path, digest in digests.items())
    assert sum(shelf.seen) == sum(file.size for file in shelf.pin.files)
    assert not list((shelf.cache.root / "parts").iterdir())


def test_a_second_job_asks_for_access_only_and_shares_the_bytes(shelf):
    shelf.fetch()
    shelf.server.clear_requests()
    other = shelf.into.with_name("second")
    shelf.fetch(into=other)
    assert [r["path"] for r in shelf.server.requests()] == [f"/api/models/{shelf.repo}/auth-check"]
    assert (other / "model.safetensors").samefile(shelf.into / "model.safetensors")


def test_a_cached_file_is_not_given_to_who_may_not_read_it(shelf):
    shelf.fetch()
    _, stranger = shelf.server.fresh_user("bob")
    for token, code in ((stranger, Code.REPO_NOT_FOUND), (None, Code.REPO_NOT_FOUND)):
        hub = Hub(shelf.server.endpoint, token, timeout_seconds=5)
        refused(code, lambda hub=hub: shelf.fetch(hub=hub, into=shelf.into.with_name("bob")))
        hub.close()
    assert not shelf.into.with_name("bob").exists()


def test_a_revoked_token_gets_nothing_from_the_cache(shelf):
    shelf.fetch()
    shelf.server.revoke_token(shelf.token)
    error = refused(Code.REPO_ACCESS_DENIED, lambda: shelf.fetch(into=shelf.into.with_name("late")))
    assert shelf.token not in f"{error}{error.names}"


def test_a_truncated_body_is_resumed_by_range(shelf):
    shelf.server.fault("truncate", path=BIG_PATH, bytes=1_000_000, times=2)
    shelf.fetch()
    assert (shelf.into / "model.safetensors").read_bytes() == BIG
    ranges = [r["range"] for r in shelf.asked()]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(int(value.removeprefix("bytes=").rstrip("-")) > 500_000 for value in ranges[1:])
    assert sum(shelf.seen) == sum(file.size for file in shelf.pin.files)


def test_a_part_left_by_a_killed_job_is_resumed(shelf):
    shelf.cache.part(sha256(BIG)).write_bytes(BIG[:2_000_000])
    shelf.fetch()
    assert (shelf.into / "model.safetensors").read_bytes() == BIG
    assert [r["range"] for r in shelf.asked()] == ["bytes=2000000-"]


def test_a_wrong_part_is_thrown_away_and_the_file_fetched_anew(shelf):
    shelf.cache.part(sha256(BIG)).write_bytes(b"x" * 2_000_000)
    shelf.fetch()
    assert (shelf.into / "model.safetensors").read_bytes() == BIG
    assert [r["range"] for r in shelf.asked()] == ["bytes=2000000-", None]


def test_wrong_bytes_are_fetched_once_more(shelf):
    shelf.server.fault("corrupt", path=BIG_PATH)
    shelf.fetch()
    assert (shelf.into / "model.safetensors").read_bytes() == BIG
    assert len(shelf.asked()) == 2
    assert sum(shelf.seen) == sum(file.size for file in shelf.pin.files)


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_wrong_bytes_twice_are_refused_by_name_and_digest(shelf, path):
    shelf.server.fault("corrupt", path=f"{path}$", times=None)
    error = refused(Code.FILE_CORRUPT, shelf.fetch)
    expected = shelf.pin.file(path).digest
    assert (error.names["file"], error.names["expected"]) == (path, expected)
    assert error.names["found"] != expected
    assert not shelf.cache.has(expected, size=shelf.pin.file(path).size)
    assert not (shelf.into / path).exists()
    assert not shelf.cache.part(expected).exists()


@pytest.mark.parametrize("action", ["status", "drop"])
def test_passing_trouble_is_overcome_and_lasting_trouble_is_told(shelf, action):
    shelf.server.fault(action, path=BIG_PATH, times=2)
    shelf.fetch()
    shelf.server.fault(action, path="/resolve/", times=None)
    fresh = BlobCache(shelf.cache.root / "other", max_bytes=10**9)
    refused(Code.HUB_UNAVAILABLE, lambda: shelf.fetch(cache=fresh))


@pytest.mark.parametrize("stall", [{"delay": 20}, {"bytes_per_second": 200}], ids=["before", "within"])
def test_a_stop_takes_effect_within_a_second_even_on_a_stalled_body(shelf, stall):
    shelf.server.fault("slow", path=BIG_PATH, **stall)
    stop = threading.Event()
    threading.Timer(0.7, stop.set).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        shelf.fetch(stop=stop.is_set)
    assert time.monotonic() - begin < 0.7 + 1.0
    shelf.server.clear_faults()
    if "delay" not in stall:  # the thread that reads is gone already, so the next call need not wait for its lock
        shelf.fetch()
        assert (shelf.into / "model.safetensors").read_bytes() == BIG


@pytest.mark.parametrize(("workers", "least", "most"), [(1, 1.5, 9.0), (3, 0.4, 1.4)])
def test_files_come_side_by_side_up_to_the_cap(shelf, workers, least, most):
    names = ["model.safetensors", "sub/notes.txt", "config.json"]
    shelf.server.fault("slow", path="/resolve/", delay=0.5, times=None)
    began = time.monotonic()
    shelf.fetch(files=[shelf.pin.file(name) for name in names], workers=workers)
    assert least < time.monotonic() - began < most + 1


def test_two_jobs_download_a_file_once(shelf):
    places = [shelf.into.with_name(f"job{number}") for number in range(3)]
    threads = [threading.Thread(target=shelf.fetch, kwargs={"into": place}) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(shelf.asked()) == 1
    assert all((place / "model.safetensors").read_bytes() == BIG for place in places)


def test_who_waits_for_another_job_s_download_sees_it_move_on(shelf):
    """Else a large file over a slow line would count as no progress for all jobs but one."""
    shelf.server.fault("slow", path=BIG_PATH, bytes_per_second=2_000_000)
    files = [shelf.pin.file("model.safetensors")]
    first = threading.Thread(target=shelf.fetch, kwargs={"files": files})
    first.start()
    while not shelf.seen:
        time.sleep(0.01)
    seen: list[int] = []
    shelf.fetch(files=files, into=shelf.into.with_name("second"), progress=seen.append)
    first.join()
    assert seen.count(0) >= 3
    assert sum(seen) == len(BIG)
    assert len(shelf.asked()) == 1


def test_a_disk_too_small_is_told_before_the_first_byte(shelf):
    huge = replace(shelf.pin.file("model.safetensors"), size=shutil.disk_usage("/").total * 2)
    error = refused(Code.DISK_FULL, lambda: shelf.fetch(files=[huge]))
    assert error.names["need"] == huge.size
    assert shelf.asked() == []


def test_a_disk_that_fills_up_leaves_no_partial_file(shelf, tmp_path):
    """A real full disk: a file system of 1 MB."""
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=3500k tmpfs {small} 2>/dev/null") != 0:
        pytest.skip("mounting needs privileges")
    try:
        cache = BlobCache(small / "cache", max_bytes=10**9)
        filler = small / "filler"

        def fill(_: int) -> None:
            if not filler.exists():
                filler.write_bytes(b"x" * 1_500_000)

        error = refused(
            Code.DISK_FULL,
            lambda: shelf.fetch(cache=cache, files=[shelf.pin.file("model.safetensors")], progress=fill, workers=1),
        )
        assert "free" in error.names
        assert not list((cache.root / "parts").iterdir())
    finally:
        os.system(f"umount -l {small}")


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a//b", "a\\..\\b", "./a", ""])
def test_a_path_out_of_the_directory_is_refused(shelf, path):
    evil = RemoteFile(path, 5, sha256(b"hello"))
    refused(Code.HUB_REFUSED, lambda: shelf.fetch(files=[evil]))
    assert not shelf.into.exists()


def test_a_digest_that_is_no_digest_is_refused(shelf):
    refused(Code.HUB_REFUSED, lambda: shelf.fetch(files=[RemoteFile("a", 5, "sha256:../../evil")]))


# --- the cache itself -------------------------------------------------------------------------------------------------


def keep(cache: BlobCache, data: bytes) -> str:
    digest = sha256(data)
    cache.part(digest).write_bytes(data)
    cache.keep(digest)
    return digest


def test_what_was_not_used_for_longest_goes_first_but_nothing_in_use(tmp_path):
    cache = BlobCache(tmp_path / "cache", max_bytes=350)
    digests = [keep(cache, bytes([number]) * 100) for number in range(4)]
    for age, digest in enumerate(digests):
        os.utime(cache.path(digest), (1000 + age, 1000 + age))
    cache.link(digests[0], tmp_path / "job" / "file")
    os.utime(cache.path(digests[0]), (1, 1))
    assert cache.trim() == 100
    assert [cache.has(digest, size=100) for digest in digests] == [True, False, True, True]
    assert cache.trim(room=100, keep=[digests[2]]) == 100
    assert [cache.has(digest, size=100) for digest in digests] == [True, False, True, False]
    assert (tmp_path / "job" / "file").read_bytes() == b"\0" * 100


def test_parts_that_dead_jobs_left_count_and_go_unless_somebody_works_on_them(tmp_path):
    cache = BlobCache(tmp_path, max_bytes=100)
    left, active = sha256(b"left"), sha256(b"active")
    for digest in (left, active):
        cache.part(digest).write_bytes(b"x" * 100)
    os.utime(cache.part(active), (1, 1))
    with cache.lock(active, checkpoint=lambda: None):
        assert cache.trim() == 100
    assert cache.part(active).exists()
    assert not cache.part(left).exists()


def test_a_blob_whose_size_is_wrong_does_not_count(tmp_path):
    cache = BlobCache(tmp_path, max_bytes=10)
    assert cache.has(keep(cache, b"abc"), size=4) is False


def test_another_file_system_gets_a_copy(tmp_path):
    cache = BlobCache(tmp_path / "cache", max_bytes=10**6)
    digest = keep(cache, b"abc")
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    target = shared / f"spear-test-{os.getpid()}"
    try:
        cache.link(digest, target)
        assert target.read_bytes() == b"abc"
    finally:
        target.unlink()
