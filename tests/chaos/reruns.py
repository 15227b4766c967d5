"""A job whose worker, supervisor or child is killed twenty times publishes the same bytes as one in peace."""

import hashlib
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.processes import below, send
from tests.chaos.verdict import read
from tests.fixtures.hub import LocalHub
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service, start_service, stop_service

SETTINGS = {
    "SPEAR_LEASE_SECONDS": "3", "SPEAR_SWEEP_SECONDS": "0.3", "SPEAR_RESEND_SECONDS": "1", "SPEAR_MAX_ATTEMPTS": "200",
    "SPEAR_PUBLISH_SECONDS": "10", "SPEAR_RESTART_SECONDS": "0.5",
}  # fmt: skip


def run(root: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Jobs on one target until so many kills were made; each result against the one made in peace."""
    hub = LocalHub(root / "hub")
    hub.start()
    (root / "service").mkdir()
    service = start_service(hub, root / "service", workers=2, **SETTINGS)
    try:
        return _run(service, root, kills=kills, seed=seed)
    finally:
        stop_service(service)
        hub.stop()


def _run(service: Service, root: Path, *, kills: int, seed: int) -> dict[str, Any]:
    began, chance, audit = time.monotonic(), random.Random(seed), Audit(service.home)
    base = make_checkpoint(root / "base", seed=1, hidden=128, layers=6, max_shard_size=300_000)
    adapted = make_checkpoint(root / "adapted", seed=2, like=base, max_shard_size=300_000)
    pair = service.push("base", base), service.push("adapted", adapted)
    recipe = service.recipe(*pair, "merged", method={"name": "spear", "policy": "aggressive"})
    clean = service.run(recipe, timeout=180)
    wanted, made, unlike = prints(service, clean), 0, []
    attempts: list[int] = []
    while made < kills:
        audit.ask("WITH gone AS (DELETE FROM spectra RETURNING 1) SELECT count(*) FROM gone")  # computed again
        with service.client() as client:
            job_id = client.submit(recipe)["id"]
        made += _hunt(service, audit, job_id, kills=kills - made, chance=chance)
        job = service.wait(job_id, timeout=180)
        attempts.append(job["attempt"])
        unlike += [path for path, digest in prints(service, job).items() if wanted.get(path) != digest]
        unlike += [] if len(service.commits_of(job)) == 1 and job["status"] == "succeeded" else [str(job["error"])]
    return {
        "held": not unlike, "wrong": sorted(set(unlike)), "kills": made, "attempts of each job": attempts,
        "files compared": len(wanted), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def prints(service: Service, job: dict[str, Any]) -> dict[str, str]:
    """The digest of every published file, with the job's id (all that may differ) taken out of the texts."""
    repo, commit = job["result"]["repo"], job["result"]["commit"]
    files = service.hub.api(service.token).list_repo_files(repo, revision=commit)
    found = {path: read(service, repo, commit, path).replace(job["id"].encode(), b"ID") for path in files}
    told = {path: hashlib.sha256(raw).hexdigest() for path, raw in found.items()}
    manifest = found["merge_manifest.json"]
    for path in ("README.md", "report.json"):  # they name the job, and so their digests in the manifest differ
        true = hashlib.sha256(read(service, repo, commit, path)).hexdigest()
        manifest = manifest.replace(true.encode(), b"DIGEST")
    return told | {"merge_manifest.json": hashlib.sha256(manifest).hexdigest()}


def _hunt(service: Service, audit: Audit, job: str, *, kills: int, chance: random.Random) -> int:
    """Kill whatever works on the job, again and again, until it has ended; how often."""
    made = 0
    while made < kills:
        status, owner = audit.ask("SELECT status, lease_owner FROM jobs WHERE id = %s", job)[0]
        if status in {"succeeded", "failed", "cancelled"}:
            break
        if status == "running" and owner:
            time.sleep(chance.uniform(0.3, 4.5))
            made += _kill(service, int(owner.split(":")[1]), chance)
        time.sleep(0.1)
    return made


def _kill(service: Service, supervisor: int, chance: random.Random) -> int:
    main = [worker for worker in service.worker_pids() if supervisor in below(worker)]
    chosen = chance.choice([main, [supervisor] if main else [], below(supervisor)])
    return int(send(chosen[:1], signal.SIGKILL))
