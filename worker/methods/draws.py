"""torch's sequential generator at any position, to reproduce programs that draw from it tensor after tensor."""

from collections.abc import Iterator

import torch

from worker.methods.base import CHUNK

SKIP = torch.tensor(0.5)


class Draws:
    """Bernoulli draws of a CPU generator seeded once; `seek` moves to a position counted in draws."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._position = 0
        self._states = {0: self._generator.get_state()}

    def seek(self, position: int) -> None:
        """Moves there: the generator cannot jump, so it goes on from the nearest position that was visited before."""
        known = max(place for place in self._states if place <= position)
        if not known <= self._position <= position:
            self._generator.set_state(self._states[known])
            self._position = known
        for size in _pieces(position - self._position):
            torch.bernoulli(SKIP.expand(size), generator=self._generator)
        self._note(position)

    def bernoulli(self, probabilities: torch.Tensor) -> torch.Tensor:
        """One draw per element."""
        drawn = torch.bernoulli(probabilities, generator=self._generator)
        self._note(self._position + probabilities.numel())
        return drawn

    def _note(self, position: int) -> None:
        self._position = position
        self._states[position] = self._generator.get_state()


def _pieces(total: int) -> Iterator[int]:
    while total > 0:
        yield min(total, CHUNK)
        total -= CHUNK
