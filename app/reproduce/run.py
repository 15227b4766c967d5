"""The whole of a reproduction: inputs against the manifest, the run, the result against the manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.hub.commits import MANIFEST
from app.hub.manifest import Manifest, Published, read_published
from app.hub.pins import pin
from app.reproduce import here, outcome, tensors
from app.reproduce.outcome import Difference, Outcome
from app.reproduce.sources import Located, locate
from app.settings import Settings

TOLD = 4
"""weight files whose tensors are looked at; the first that differ tell enough"""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One published merge, to be made again."""

    hub: Hub
    settings: Settings
    published: Published

    @property
    def manifest(self) -> Manifest:
        return self.published.manifest

    def begin(self, *, way: str) -> Outcome:
        """Nothing found yet."""
        repo = self.published.pin
        return Outcome(
            repo=repo.repo, commit=repo.commit, job_id=self.manifest.job_id, way="here" if way == "here" else "service"
        )

    def check_published(self) -> list[Difference]:
        """Weight files of the repository that are not, or no more, what its own manifest lists."""
        found = {file.path: file.digest for file in self.published.pin.files}
        return [
            Difference(
                what="published", name=path, repo=self.published.pin.repo, expected=f"sha256:{file.sha256}",
                found=found.get(path),
            )
            for path, file in outcome.results(self.manifest).items()
            if path not in found or (found[path].startswith("sha256:") and found[path] != f"sha256:{file.sha256}")
        ]  # fmt: skip

    def check_inputs(self, mirrors: dict[str, tuple[str, str]]) -> tuple[list[Located], list[Difference]]:
        """The inputs as the Hub has them now."""
        located, differences = locate(self.hub, self.manifest, mirrors=mirrors)
        return located, [*differences, *(difference for one in located for difference in one.differences())]

    def run_here(
        self, inputs: list[Located], found: Outcome, *, folder: Path, threads: int, device: here.Device | None,
        rescore: bool, cached: bool, tell: here.Tell, go_on: bool,
    ) -> None:  # fmt: skip
        """Make the merge again in `folder`, and fill in what was found."""
        try:
            here.bring(self.hub, inputs, folder=folder, settings=self.settings, cached=cached, tell=tell)
        except SpearError as error:
            if error.code is not Code.FILE_CORRUPT:
                raise
            found.differences.append(_corrupt(error))
            return
        for number, one in enumerate(inputs):
            known = {difference.name for difference in found.differences if difference.repo == one.pin.repo}
            fresh = [each for each in one.check(folder / "inputs" / str(number)) if each.name not in known]
            found.differences += fresh
        if any(each.what == "input" for each in found.differences) and not go_on:
            return
        here.compute(
            self.manifest, folder=folder, settings=self.settings, threads=threads, rescore=rescore, tell=tell,
            device=device or here.device_of(self.manifest, self.settings),
        )
        found.ran = True
        now = Manifest.model_validate_json((folder / "output" / MANIFEST).read_bytes())
        self._judge(found, now, digests=here.digests(folder / "output"))
        self._tell_tensors(
            found, lambda path: (tensors.on_disk(folder / "output" / path), (folder / "output" / path).stat().st_size)
        )

    def judge_job(self, found: Outcome, *, repo: str, commit: str) -> None:
        """Fill in what the service's new commit holds."""
        again = read_published(self.hub, repo, commit)
        found.ran = True
        digests = {path: file.sha256 for path, file in again.manifest.outputs.items()}
        self._judge(found, again.manifest, digests=digests)
        there = pin(self.hub, repo, commit)
        sizes = {file.path: file.size for file in there.files}
        self._tell_tensors(found, lambda path: (tensors.on_hub(self.hub, there, path), sizes[path]))

    def _judge(self, found: Outcome, now: Manifest, *, digests: dict[str, str]) -> None:
        results = outcome.results(self.manifest)
        made = {path: digest for path, digest in digests.items() if not path.startswith(outcome.EVIDENCE)}
        found.files, differences = outcome.compare_files(results, made)
        found.differences += [*outcome.compare_decisions(self.manifest, now), *differences]
        found.engine = outcome.compare_engines(self.manifest.engine, now.engine)

    def _tell_tensors(self, found: Outcome, ours: Callable[[str], tuple[tensors.Reader, int]]) -> None:
        """Which tensors of the weight files that differ, where the published file is still there to be read."""
        sizes = {file.path: file.size for file in self.published.pin.files}
        apart = outcome.weights(path for path, equal in found.files.items() if not equal)
        for path in [path for path in apart if path in sizes][:TOLD]:
            try:
                read, size = ours(path)
                theirs = tensors.on_hub(self.hub, self.published.pin, path)
                named = tensors.differing(theirs, read, file=path, sizes=(sizes[path], size))
            except (SpearError, OSError, KeyError):
                continue  # that the file differs is told already
            found.differences += [
                Difference(what="tensor", name=name, note=f"{note} (in {path})") for name, note in named.items()
            ]


def _corrupt(error: SpearError) -> Difference:
    names = error.names
    return Difference(
        what="input", name=str(names.get("file")), repo=str(names.get("repo")), expected=str(names.get("expected")),
        found=str(names.get("found")),
    )  # fmt: skip
