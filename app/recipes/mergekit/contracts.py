"""What mergekit 0.1.5 asks of each of its methods: how many inputs, what the base is, which parameters.

Facts about mergekit, not its code (https://github.com/arcee-ai/mergekit, version 0.1.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED = object()
"""The default of a parameter that has to be given."""


@dataclass(frozen=True)
class Contract:
    """One method of mergekit's.

    `base`: `required`, or `optional` (its presence changes what is computed), or `ignored` (an input like the others).
    `least` and `most` count all inputs, the base among them. `shared` are the parameters of the whole merge, `own`
    those of each input, by name with their defaults; those of `own` do not apply to a base that is no mere input.
    """

    base: Literal["required", "optional", "ignored"]
    least: int = 1
    most: int | None = None
    shared: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    with_base: Mapping[str, Any] = field(default_factory=dict)
    """parameters of our method that say that a base was given, where mergekit's method then does something else"""


def _task_vectors(*, normalize: bool = False, rescale: bool | None = None, **own: Any) -> Contract:
    shared = {"normalize": normalize, "lambda": 1.0} | ({} if rescale is None else {"rescale": rescale})
    return Contract("required", shared=shared, own={"weight": REQUIRED, **own})


CONTRACTS: dict[str, Contract] = {
    "linear": Contract("ignored", shared={"normalize": True}, own={"weight": REQUIRED}),
    "slerp": Contract("required", 2, 2, shared={"t": REQUIRED}),
    "nuslerp": Contract(
        "optional", 2, 3, shared={"nuslerp_row_wise": False, "nuslerp_flatten": True},
        own={"weight": REQUIRED},
        with_base={"task_vectors": True},
    ),
    "multislerp": Contract(
        "optional", shared={"normalize_weights": True, "eps": 1e-8}, own={"weight": REQUIRED},
        with_base={"task_vectors": True},
    ),
    "karcher": Contract("ignored", shared={"max_iter": 10, "tol": 1e-5}),
    "task_arithmetic": _task_vectors(),
    "ties": _task_vectors(normalize=True, rescale=False, density=1.0),
    "dare_linear": _task_vectors(rescale=True, density=1.0),
    "dare_ties": _task_vectors(rescale=True, density=1.0),
    "della": _task_vectors(normalize=True, rescale=True, density=1.0, epsilon=0.15),
    "della_linear": _task_vectors(rescale=True, density=1.0, epsilon=0.15),
    "breadcrumbs": _task_vectors(rescale=False, density=1.0, gamma=0.01),
    "breadcrumbs_ties": _task_vectors(rescale=False, density=1.0, gamma=0.01),
    "model_stock": Contract("required", 3, shared={"filter_wise": False}),
    "sce": Contract("required", shared={"select_topk": 1.0}),
    "nearswap": Contract("required", 2, 2, shared={"t": REQUIRED}),
    "arcee_fusion": Contract("required", 2, 2),
    "passthrough": Contract("ignored", 1, 1, own={"scale": 1.0}),
}

WITHOUT_EFFECT = frozenset({"int8_mask"})
"""Parameters that only save mergekit memory: taken with every method, and left out."""
