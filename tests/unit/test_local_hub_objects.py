"""The local Hub's object ids are git's own, and its names are strict."""

import hashlib

import pytest

from app.local.hub import git, names
from app.local.hub.errors import HubError
from app.local.hub.git import File
from app.local.hub.repository import Repository


def _file(content: bytes) -> File:
    return File(oid=git.object_id("blob", content), size=len(content))


def test_blobs_and_trees_have_the_ids_that_git_gives_them():
    files = {"a.d/q": _file(b"z\n"), "a.txt": _file(b"yo\n"), "a/b/x": _file(b"hi\n"), "empty": _file(b"")}
    ids = git.directory_ids(files)
    # from `git write-tree` and `git ls-tree` on these files
    assert files["a/b/x"].oid == "45b983be36b73c0788dc9cbcb76cbb80fc7bb057"
    assert ids == {
        "": "5a8f04fc38d3f7bb2632dc5181a50b2fd714a711",
        "a": "e7675f9adbe84f8fa0584a315b909f6c5ed18b2a",
        "a.d": "b43f83211a405ef76636a7b13ec0903aea98a134",
        "a/b": "488958086aadb031695daea66ee5dec69cb80f15",
    }
    assert git.directory_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_a_commit_has_the_id_that_git_gives_it():
    text = git.commit_text(
        tree="4b825dc642cb6eb9a060e54bf8d69288fbee4904", parents=[], author="ann", seconds=1700000000,
        message="one\n\ntwo\n",
    )  # fmt: skip
    assert git.object_id("commit", text) == "69b491fb04d92d16f6c7b36c1d8c6f6d3c666825"


def test_an_lfs_file_is_a_pointer_in_git():
    sha256 = hashlib.sha256(b"weights").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 7\n".encode()
    assert git.lfs_file(sha256=sha256, size=7) == File(oid=git.object_id("blob", pointer), size=7, sha256=sha256)
    assert git.lfs_fields(_file(b""), oid_name="oid") == {}


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.", "a\0b", "a\\b", "a\nb", ".git/config", "a/.GIT/x",
        "a" * 300, "a/" * 501 + "a",
    ],
)  # fmt: skip
def test_paths_that_could_leave_the_repository_are_refused(path: str):
    with pytest.raises(HubError):
        names.require_path(path)


@pytest.mark.parametrize("path", ["config.json", "a/b c/é.txt", ".gitattributes", "..a/b..", "%2e%2e/x"])
def test_ordinary_paths_are_accepted(path: str):
    assert names.require_path(path) == path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-a", "a-", "a..b", "a--b", "x.git", "a\0", "é", "a" * 97, "_lfs"]
)
def test_names_that_are_no_repository_names_are_refused(name: str):
    assert not names.is_name(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "a/../b", "a.lock", "a b", "-x", ".x", "a/.x", "0" * 40, "a\n"]
)
def test_reference_names_are_strict(name: str):
    with pytest.raises(HubError):
        names.require_ref(name)


@pytest.mark.parametrize("name", ["main", "exp/1", "v1.0", "merge/mrg_01"])
def test_ordinary_reference_names_are_accepted(name: str):
    assert names.require_ref(name) == name


@pytest.mark.parametrize(
    ("path", "size", "lfs"),
    [
        ("model.safetensors", 8, True), ("a/b.bin", 8, True), ("saved_model/lfs.x.y", 1, False), ("a.lfs.x", 1, True),
        ("events.out.tfevents.1", 1, True), ("config.json", 10 * 1024 * 1024, False),
        ("t.json", 10 * 1024 * 1024 + 1, True),
        ("README.md", 5, False), ("bin", 5, False),
    ],
)  # fmt: skip
def test_which_files_go_to_lfs(path: str, size: int, lfs: bool):
    assert Repository.wants_lfs(path, size=size) is lfs
