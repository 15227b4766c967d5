"""What the shell is told when somebody presses Tab."""

import os

import httpx2

SECONDS = 2.0
JOBS = 30
FOLDERS = {"mrg": "merges", "scr": "scores", "evl": "evaluations", "std": "studies"}
"""where jobs are listed, by how their ids begin"""


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """The latest jobs' ids, each with its status and target; nothing where the service does not answer at once."""
    url, key = os.environ.get("SPEAR_API_URL", "http://127.0.0.1:8000"), os.environ.get("SPEAR_API_KEY", "")
    found: list[tuple[str, str]] = []
    for prefix, folder in FOLDERS.items():
        if not prefix.startswith(incomplete[: len(prefix)]):
            continue
        try:
            answer = httpx2.get(
                f"{url}/{folder}", params={"limit": JOBS}, headers={"Authorization": f"Bearer {key}"},
                timeout=SECONDS, trust_env=False,
            )  # fmt: skip
            jobs = answer.json()["data"] if answer.is_success else []
        except (httpx2.HTTPError, ValueError, KeyError):
            return found
        found += [(job["id"], _words(job)) for job in jobs if job["id"].startswith(incomplete)]
    return found


def _words(job: dict[str, object]) -> str:
    recipe = job["recipe"]
    target = recipe.get("target") if isinstance(recipe, dict) else None
    return f"{job['status']}, {target['repo'] if target else job['kind']}"
