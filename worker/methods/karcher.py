"""Karcher (Riemannian) mean of unit tensors. Source: arXiv 2603.04972 and mergekit."""

from collections.abc import Sequence
from math import acos, cos, pi, sin, sqrt

import torch

from worker.methods.geometry import GeometricMethod


class Karcher(GeometricMethod):
    """The point of the unit sphere with the least mean squared angle to the experts, at their mean length.

    The iterations run on coefficients: mean and tangents lie in the span of the experts, so inner products suffice.
    Tensors of a norm up to `tol` take no part in the direction.
    """

    name = "karcher"

    def factors(self, products: torch.Tensor) -> Sequence[float]:
        tol = float(self.spec.parameters["tol"])
        norms = products.diagonal().sqrt()
        valid = norms > tol
        if len(norms) == 1 or not valid.any():
            return [float(len(norms) == 1)] * len(norms)
        inverse = torch.where(valid, 1 / norms, 0)
        cosines = products * inverse[:, None] * inverse[None, :]
        mean = self._mean(cosines, valid.double() / valid.sum(), tol=tol)
        return (mean * inverse * norms.mean()).tolist()

    def _mean(self, cosines: torch.Tensor, shares: torch.Tensor, *, tol: float) -> torch.Tensor:
        """Coefficients of the mean over the unit vectors."""
        first = torch.zeros_like(shares).index_fill_(0, shares.nonzero()[0], 1)
        mean = shares.clone() if _length(shares, cosines) >= tol else first
        mean /= _length(mean, cosines)
        for _ in range(int(self.spec.parameters["max_iter"])):
            tangent = self._tangent(mean, cosines, shares, tol=tol)
            angle = _length(tangent, cosines)
            if angle < tol:
                break
            mean = cos(angle) * mean + sin(angle) / angle * tangent
            mean /= _length(mean, cosines)
        return mean

    def _tangent(self, mean: torch.Tensor, cosines: torch.Tensor, shares: torch.Tensor, *, tol: float) -> torch.Tensor:
        """The mean of the logarithmic maps of the unit vectors at `mean`."""
        tangent = torch.zeros_like(mean)
        for number, dot in enumerate((cosines @ mean).clamp(-1, 1).tolist()):
            angle = acos(dot)
            if min(angle, pi - angle) < tol or not shares[number]:  # opposite the mean, every way is as short
                continue
            step = -dot * mean
            step[number] += 1
            tangent += shares[number] * (angle / sin(angle)) * step
        return tangent


def _length(coefficients: torch.Tensor, products: torch.Tensor) -> float:
    return sqrt(max(0.0, (coefficients @ products @ coefficients).item()))
