"""Barycentric interpolation on the sphere. Source: goddard.blog/posts/multislerp-wow-what-a-cool-idea, mergekit."""

from collections.abc import Sequence
from math import sqrt

import torch

from worker.methods.geometry import GeometricMethod, ZeroNormError
from worker.methods.linear import normalized


class MultiSlerp(GeometricMethod):
    """The experts' weighted mean direction, at their weighted mean length.

    mergekit then averages the projections on the tangent plane of that direction and follows the exponential map; with
    the same weights in both means this step is zero identically (it adds rounding noise), so it is left out.
    """

    name = "multislerp"

    def factors(self, products: torch.Tensor) -> Sequence[float]:
        eps = float(self.spec.parameters["eps"])
        weights = normalized(
            [float(expert["weight"]) for expert in self.spec.experts],
            normalize=self.spec.parameters["normalize_weights"],
        )
        if len(weights) == 1:
            return [1.0]
        norms = [sqrt(max(0.0, product)) for product in products.diagonal().tolist()]
        unit = torch.tensor([w / (norm + eps) for w, norm in zip(weights, norms, strict=True)], dtype=torch.float64)
        length = sqrt(max(0.0, (unit @ products @ unit).item()))
        if length < eps:
            if len(weights) == 2 or max(norms) <= eps:  # nothing, or nothing changed: the mean is that
                return weights
            raise ZeroNormError(f"the weighted directions of {self.spec.name} cancel out: choose other weights")
        mean_norm = sum(weight * norm for weight, norm in zip(weights, norms, strict=True))
        return (unit * (mean_norm / length)).tolist()
