"""Many small jobs of all sorts, and how they have to end."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import torch

from app.client import ApiError, Client
from tests.fixtures.models import make_checkpoint, rewrite_tensor
from tests.fixtures.service import Service

METHODS: tuple[tuple[int, dict[str, Any], int], ...] = (
    # weight, method, experts
    (4, {"name": "linear"}, 2), (3, {"name": "slerp", "t": 0.4}, 1), (3, {"name": "task_arithmetic"}, 2),
    (3, {"name": "ties", "density": 0.5}, 2), (3, {"name": "dare_ties", "density": 0.5, "seed": 3}, 2),
    (2, {"name": "wise_ft", "alpha": 0.5}, 1), (3, {"name": "spear"}, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Models:
    """Checkpoints on the Hub, by their repo ids; `broken` holds a NaN, which no merge may publish."""

    base: str
    experts: tuple[str, ...]
    broken: str


@dataclass
class Wish:
    """One submitted job and what is to become of it."""

    job_id: str
    ends: str
    cancel_at: float = 0.0
    cancelled: bool = field(default=False)
    """a cancellation was confirmed: nothing may be published"""


def push_models(service: Service, root: Path) -> Models:
    """Models so small that a job costs little but the start of its child."""
    base = make_checkpoint(root / "base", seed=1, hidden=16, layers=1)
    experts = [make_checkpoint(root / f"expert{n}", seed=2 + n, like=base, hidden=16, layers=1) for n in range(2)]
    broken = make_checkpoint(root / "broken", seed=9, like=base, hidden=16, layers=1)
    rewrite_tensor(broken, "model.layers.0.mlp.up_proj.weight", lambda tensor: tensor.fill_(torch.nan))
    return Models(
        base=service.push("base", base), experts=tuple(service.push(path.name, path) for path in experts),
        broken=service.push("broken", broken),
    )


def tidy(service: Service, models: Models) -> None:
    """One more job, in peace: who claims it first clears what dead workers have left of jobs that have ended."""
    recipe = service.recipe(models.base, models.experts[0], "tidy", method={"name": "linear"})
    job = service.run(recipe, timeout=120)
    assert job["status"] == "succeeded", job["error"]
    end = time.monotonic() + 5
    while list((service.home / "jobs").glob("*")) and time.monotonic() < end:
        time.sleep(0.2)


class Workload:
    """Keeps a few jobs in the queue until all have been submitted, and cancels some on the way."""

    def __init__(
        self, service: Service, models: Models, *, jobs: int, cancelled: int, poisoned: int, seed: int, targets: int
    ) -> None:
        self._service = service
        self._models = models
        self._random = random.Random(seed)
        self._kinds = ["succeeded"] * jobs + ["cancelled"] * cancelled + ["failed"] * poisoned
        self._random.shuffle(self._kinds)
        self._targets = [f"t{number}" for number in range(targets)]
        self.wishes: list[Wish] = []

    @property
    def total(self) -> int:
        return len(self._kinds)

    def submit(self, client: Client) -> bool:
        """Submit the next job; False where the service cannot take it now."""
        number = len(self.wishes)
        ends = self._kinds[number]
        recipe = self._recipe(self._targets[number % len(self._targets)], broken=ends == "failed")
        try:
            job = client.submit(recipe, idempotency_key=f"chaos-{number}")
        except (ApiError, httpx2.TransportError) as error:
            if isinstance(error, ApiError) and error.status < 500 and error.code != "target_busy":
                raise
            return False
        later = time.monotonic() + self._random.uniform(0, 12) if ends == "cancelled" else 0.0
        self.wishes.append(Wish(job["id"], ends, cancel_at=later))
        return True

    def cancel_due(self, client: Client) -> None:
        """Cancel what is to be cancelled now. Who is late finds the job published, and that is right as well."""
        for wish in self.wishes:
            if wish.ends == "cancelled" and 0 < wish.cancel_at < time.monotonic():
                self._cancel(client, wish)

    def _cancel(self, client: Client, wish: Wish) -> None:
        try:
            client.cancel(wish.job_id)
        except ApiError as error:
            if error.code == "too_late":
                wish.ends, wish.cancel_at = "succeeded", 0.0
        except httpx2.TransportError:
            pass  # asked again at the next turn
        else:
            wish.cancelled, wish.cancel_at = True, 0.0

    def _recipe(self, target: str, *, broken: bool) -> dict[str, Any]:
        [(_, method, experts)] = self._random.choices(METHODS, [weight for weight, *_ in METHODS])
        repos = list(self._random.sample(self._models.experts, experts))
        if broken:
            repos[0] = self._models.broken
        recipe = self._service.recipe(self._models.base, repos[0], target, method=method)
        return recipe | {"experts": [{"repo": repo} for repo in repos], "labels": {"run": "chaos"}}
