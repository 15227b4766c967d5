"""The decisions that a recipe's `replay` names: who may read them, and whether they belong to the same inputs."""

from collections.abc import Collection, Sequence

from app.errors import Code, SpearError
from app.hub.access import check_read
from app.hub.client import Hubs
from app.hub.manifest import read_published
from app.hub.pins import Pin
from app.recipes import Recipe

POINTER = "/replay"
MOST = 2.0
"""the strongest t that a search may choose: beyond the adapted model"""


def decisions_of(
    recipe: Recipe, *, hubs: Hubs, reads: Sequence[str], pins: Sequence[Pin], tensors: Collection[str]
) -> dict[str, float] | None:
    """The t of every tensor that the replayed merge chose; None for a recipe that replays none.

    `pins` are the recipe's inputs, `tensors` the names of the base's tensors. Raises `SpearError` with the recipe's
    pointer: what `check_read` raises, and `invalid_recipe` where the merge is of other commits or names other tensors.
    """
    if recipe.replay is None:
        return None
    try:
        check_read(recipe.replay.repo, anonymous=hubs.anonymous, service=hubs.service, reads=reads)
        manifest = read_published(hubs.service, recipe.replay.repo, recipe.replay.revision).manifest
    except SpearError as error:
        error.pointer = error.pointer or POINTER
        raise
    merged, asked = [(one.repo, one.commit) for one in manifest.inputs], [(pin.repo, pin.commit) for pin in pins]
    if merged != asked:
        words = " and ".join(f"{repo}@{commit[:12]}" for repo, commit in merged)
        raise _unfit(recipe, f"is a merge of {words}, and this recipe is not")
    found = manifest.replay
    if found is None:
        raise _unfit(recipe, "has no decisions: its method chooses nothing")
    bad = sorted(name for name, t in found.items() if name not in tensors or not 0 <= t <= MOST)
    if bad:
        raise _unfit(recipe, f"decides on {bad[0][:200]!r}, which cannot be")
    return found


def _unfit(recipe: Recipe, what: str) -> SpearError:
    assert recipe.replay is not None
    repo, commit = recipe.replay.repo, recipe.replay.revision
    return SpearError(
        Code.INVALID_RECIPE, f"{repo}@{commit[:12]} {what}", pointer=POINTER, repo=repo, commit=commit
    )
