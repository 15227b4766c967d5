"""The inputs of a published merge: where they are read from, and whether they are what the manifest lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.blobs import digest_file
from app.hub.client import Hub
from app.hub.manifest import Manifest, Source
from app.hub.pins import Pin, RemoteFile, pin
from app.reproduce.outcome import Difference

_GONE = frozenset({Code.REPO_NOT_FOUND, Code.REVISION_NOT_FOUND, Code.REPO_ACCESS_DENIED, Code.REPO_GATED})


@dataclass(frozen=True)
class Located:
    """One input of the manifest, and the repository that it is read from: its own, or a mirror."""

    source: Source
    pin: Pin

    @property
    def files(self) -> list[RemoteFile]:
        """The listed files that are there."""
        return [file for file in self.pin.files if file.path in self.source.files]

    def differences(self) -> list[Difference]:
        """Listed files that are missing or have another digest, by the Hub's own word."""
        there = {file.path: file.digest for file in self.pin.files}
        return [
            Difference(what="input", name=path, repo=self.pin.repo, expected=digest, found=there.get(path))
            for path, digest in sorted(self.source.files.items()) if there.get(path) != digest
        ]  # fmt: skip

    def check(self, folder: Path) -> list[Difference]:
        """The same of the files as they lie on this machine, every byte read."""
        found = {path: digest_file(folder / path, like) for path, like in self.source.files.items()
                 if (folder / path).is_file()}  # fmt: skip
        return [
            Difference(
                what="input", name=path, repo=self.pin.repo, expected=digest, found=found.get(path),
                note=f"the copy in {folder} is {found.get(path)}, the manifest says {digest}",
            )
            for path, digest in sorted(self.source.files.items()) if found.get(path) != digest
        ]  # fmt: skip


def locate(
    hub: Hub, manifest: Manifest, *, mirrors: Mapping[str, tuple[str, str]]
) -> tuple[list[Located], list[Difference]]:
    """Every input at its commit, or where `mirrors` (repository to repository and revision) says.

    An input that cannot be read any more is a difference. Raises `ValueError` for a mirror of no input.
    """
    unknown = sorted(set(mirrors) - {source.repo for source in manifest.inputs})
    if unknown:
        known = ", ".join(source.repo for source in manifest.inputs)
        raise ValueError(f"{unknown[0]} is no input of this merge; its inputs are {known}")
    found, gone = [], []
    for source in manifest.inputs:
        repo, revision = mirrors.get(source.repo, (source.repo, source.commit))
        try:
            found.append(Located(source, pin(hub, repo, revision)))
        except SpearError as error:
            if error.code not in _GONE:
                raise
            gone.append(Difference(
                what="input", name=f"commit {revision}", repo=repo, expected=source.commit, note=error.message,
            ))  # fmt: skip
    return found, gone


def parse_mirrors(pairs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`org/name=mirror/name@revision` for each mirror; the revision is `main` if none is named."""
    found = {}
    for pair in pairs:
        repo, sign, mirror = pair.partition("=")
        place, _, revision = mirror.partition("@")
        if not (sign and repo.count("/") == 1 and place.count("/") == 1):
            raise ValueError(f"{pair!r} is no mirror: write org/name=org/mirror@revision")
        found[repo] = (place, revision or "main")
    return found
