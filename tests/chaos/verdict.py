"""What the run has to show, looked at from outside: the rows, the Hub's commits, the published bytes."""

import hashlib
import json
import math
import re
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.workload import Wish
from tests.fixtures.service import Service

_TRAILER = re.compile(r"Merge-Job: (\S+) ([0-9a-f]{64})")


def judge(service: Service, audit: Audit, wishes: Sequence[Wish]) -> dict[str, Any]:
    """Counts of everything that must not be: each has to be 0. Names what was found."""
    rows = {row[0]: row[1:] for row in audit.ask("SELECT id, status, result ->> 'commit', target_repo FROM jobs")}
    commits = published(service, {target for *_, target in rows.values()})
    wrong = [
        f"{wish.job_id}: {rows[wish.job_id][0]}, not {wish.ends}" for wish in wishes
        if wish.job_id in rows and rows[wish.job_id][0] != wish.ends
    ]  # fmt: skip
    ended = {"succeeded", "failed", "cancelled"}
    return {
        "lost": [wish.job_id for wish in wishes if wish.job_id not in rows or rows[wish.job_id][0] not in ended],
        "ended otherwise": wrong,
        "published twice": [job for job, found in commits.items() if len(found) > 1],
        "succeeded without its commit": [
            job for job, (status, commit, _) in rows.items()
            if status == "succeeded" and [oid for _, oid, _ in commits[job]] != [commit]
        ],
        "published without success": [job for job in commits if commits[job] and rows[job][0] != "succeeded"],
        "cancelled and published": [wish.job_id for wish in wishes if wish.cancelled and commits[wish.job_id]],
        "unlike the manifest": [
            fault for job, found in commits.items() for commit in found for fault in unlike(service, job, *commit)
        ],
        "stale writes accepted": ["see the table chaos_writes"] * audit.stale_writes(),
        "events with gaps": [
            row[0] for row in audit.ask(
                "SELECT job_id FROM events JOIN jobs ON id = job_id GROUP BY job_id, event_seq"
                " HAVING count(*) <> event_seq OR max(seq) <> event_seq"
            )
        ],
        "workspaces left": [path.name for path in (service.home / "jobs").glob("*")],
    }  # fmt: skip


def published(service: Service, targets: set[str]) -> dict[str, list[tuple[str, str, str]]]:
    """By job: (repo, commit, manifest digest) of every commit on any branch of the targets that bears it."""
    api = service.hub.api(service.token)
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for repo in sorted(target for target in targets if target and api.repo_exists(target)):
        seen = set()
        for branch in api.list_repo_refs(repo).branches:
            for commit in api.list_repo_commits(repo, revision=branch.name):
                match = _TRAILER.search(commit.message)
                if match and commit.commit_id not in seen:
                    seen.add(commit.commit_id)
                    found[match[1]].append((repo, commit.commit_id, match[2]))
    return found


def unlike(service: Service, job: str, repo: str, commit: str, digest: str) -> list[str]:
    """Every published file whose bytes are not those that the manifest names, and the manifest itself."""
    raw = read(service, repo, commit, "merge_manifest.json")
    manifest = json.loads(raw)
    faults = [] if hashlib.sha256(raw).hexdigest() == digest and manifest["job_id"] == job else ["manifest"]
    for path, entry in manifest["outputs"].items():
        if hashlib.sha256(read(service, repo, commit, path)).hexdigest() != entry["sha256"]:
            faults.append(path)
    return [f"{repo}@{commit}: {path}" for path in faults]


def read(service: Service, repo: str, commit: str, path: str) -> bytes:
    """A published file."""
    url = f"{service.hub.endpoint}/{repo}/resolve/{commit}/{path}"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {service.token}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return bytes(reply.read())


def recoveries(audit: Audit, orphans: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    """Seconds from a worker's death until its job was free again (or settled), and until it ran again (or was)."""
    ended = "'job.succeeded', 'job.failed', 'job.cancelled', 'job.claimed'"
    query = (
        "SELECT extract(epoch FROM min(at))::float, extract(epoch FROM min(at) FILTER (WHERE type <> 'job.requeued'))"
        f"::float FROM events WHERE job_id = %s AND at > to_timestamp(%s) AND type IN ('job.requeued', {ended})"
    )
    times: dict[str, list[float]] = {"freed": [], "running": []}
    for job, at in orphans:
        freed, running = audit.ask(query, job, at)[0]
        times["freed"].append(freed - at if freed else math.inf)
        times["running"].append(running - at if running else math.inf)
    return times


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, p50, p95 and the largest."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    at = lambda share: round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 2)  # noqa: E731
    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 2)}


def states(audit: Audit) -> Counter[str]:
    """How many jobs stand in each state."""
    return Counter(dict(audit.ask("SELECT status, count(*) FROM jobs GROUP BY status")))
