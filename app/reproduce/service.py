"""Having the service run a merge again, into a target of the caller's."""

from typing import Any

from app.hub.manifest import Manifest, Published

_OWN = ("scores", "webhook", "max_queue_seconds", "max_runtime_seconds", "replay")
"""what was for the first run only"""


def recipe_again(published: Published, *, target: str, branch: str, rescore: bool) -> dict[str, Any]:
    """The recipe that makes this merge again: its pinned commits, its decisions (unless `rescore`), another target.

    The target is private. Nothing is measured: an evaluation does not change what is published.
    """
    manifest, repo = published.manifest, published.pin
    recipe = {name: value for name, value in manifest.recipe.items() if name not in _OWN}
    base, *experts = [source.commit for source in manifest.inputs]
    pinned = {
        "base": {**recipe["base"], "revision": base},
        "experts": [
            {**expert, "revision": commit} for expert, commit in zip(recipe["experts"], experts, strict=True)
        ],
        "target": {"repo": target, "branch": branch, "private": True},
        "evaluation": None,
        "labels": {**recipe.get("labels", {}), "reproduces": f"{repo.repo}@{repo.commit[:12]}"},
    }
    replay = {} if rescore or manifest.replay is None else {"replay": {"repo": repo.repo, "revision": repo.commit}}
    return {**recipe, **pinned, **replay}


def refuse_rescore(manifest: Manifest) -> None:
    """Raises `ValueError` where the decisions cannot be made anew without measuring."""
    if manifest.recipe.get("method", {}).get("policy") == "auto":
        raise ValueError(
            "the decisions of `policy: auto` came from a search over evaluations, which --rescore does not repeat: "
            "leave it out, and the recorded decisions are replayed"
        )
