"""What every merge method is made of.

A method sees one tensor at a time, flattened, as a stream of chunks that fit the processor's cache. It may ask for any
number of surveys (passes over all chunks that only gather statistics); then every chunk is merged into its place in
the output. Arithmetic is fp32 with one rounding at the end, unless the method says otherwise.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from worker.processor import converts_halves

if TYPE_CHECKING:
    from worker.methods.fused.engine import Engine

CHUNK = 1 << 18
"""Elements of a chunk: 1 MiB as fp32."""


@dataclass(frozen=True)
class Spec:
    """One tensor's merge: its name and shape, the method's parameters, and those of each expert, in order.

    Values that a recipe gives by filter or over depth are resolved: here they are plain. `keys` are the experts'
    identities (commits), for random masks. `drawn` counts the random draws that mergekit would have made before this
    tensor, going through all tensors in the order of their names' bytes; `depth` is the layer's place from 0 to 1.
    """

    name: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    experts: tuple[Mapping[str, Any], ...] = ()
    keys: tuple[str, ...] = ()
    drawn: int = 0
    depth: float = 0.0

    @property
    def elements(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def row(self) -> int:
        """Elements of one row (the last dimension)."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True)
class Chunk:
    """Elements `start` to `stop` of the flattened tensor, in every model, each as it is stored."""

    start: int
    stop: int
    base: torch.Tensor
    experts: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        return self.stop - self.start


class Workspace:
    """Buffers that are reused from chunk to chunk and tensor to tensor: fresh memory costs page faults.

    Here it is decided whether compiled loops are used (`engine`), for the methods that have them.
    """

    def __init__(
        self, *, keep: int = 4 * CHUNK, device: torch.device | None = None, fused: bool = True
    ) -> None:
        self.device = device or torch.device("cpu")
        self._fused = fused and self.device.type == "cpu"
        self._keep = keep
        self._blocks: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        self.memory: dict[object, Any] = {}
        """what a method wants to find again at its next tensor"""

    @cached_property
    def engine(self) -> "Engine | None":
        """The compiled loops; None where numba is not installed, the processor does not convert fp16, or the device is
        not the CPU. Same bits either way."""
        if not self._fused or find_spec("numba") is None or not converts_halves():
            return None
        from worker.methods.fused.engine import Engine  # noqa: PLC0415  (half a second: for those who need it)

        return Engine()

    @property
    def loaded(self) -> "Engine | None":
        """The compiled loops if somebody has loaded them already: for methods that gain too little to load them."""
        found: Engine | None = self.__dict__.get("engine")
        return found

    def take(self, key: str, elements: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialised 1-D tensor of so many elements; the same key gives the same memory again."""
        block = self._blocks.get((key, dtype))
        if block is None or block.numel() < elements:
            block = torch.empty(max(elements, min(CHUNK, self._keep)), dtype=dtype, device=self.device)
            if elements <= self._keep:  # what a single huge tensor needs is not held for ever
                self._blocks[key, dtype] = block
        return block[:elements]

    def load(self, key: str, stored: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A copy of `stored` in another dtype, in the buffer `key`."""
        return self.take(key, stored.numel(), dtype).copy_(stored)


class NotFiniteError(ArithmeticError):
    """A method came upon NaN or infinity that its result would not show."""


class UndefinedError(ValueError):
    """A method has no result for a tensor; the message says why."""


class Method(ABC):
    """One tensor's merge by one method. A subclass is the method; its `name` is the recipe's."""

    name: ClassVar[str] = ""
    uses_base: bool = True
    """whether the base is read at all (it is always there when it is listed as an expert)"""

    def __init__(self, spec: Spec, work: Workspace) -> None:
        self.spec = spec
        self.work = work
        self.turn = 0

    @classmethod
    def made_for(cls, spec: Spec, work: Workspace) -> "Method":
        """The method for one tensor; a subclass may choose a variant of itself by the parameters."""
        return cls(spec, work)

    @classmethod
    def draws(cls, spec: Spec) -> int:  # noqa: ARG003
        """The random draws that mergekit makes for this tensor, where its order of draws is to be reproduced."""
        return 0

    @classmethod
    def prepare(cls, work: Workspace, specs: Sequence[Spec]) -> None:
        """Loads what the method needs for all these tensors, before the first of them."""
        _ = work, specs

    @property
    def probes(self) -> Sequence[tuple[int, int]]:
        """Spans of elements that the method wants to see before the first survey."""
        return ()

    @property
    def surveys(self) -> int:
        """How many surveys this tensor needs; may grow while they go on."""
        return 0

    @property
    def grain(self) -> int:
        """Chunks hold a multiple of so many elements: 1, a row, or the whole tensor."""
        return 1

    @property
    def operation(self) -> str:
        """What was done, for the manifest; final once the surveys are over."""
        return self.name

    def probe(self, chunk: Chunk) -> None:  # noqa: B027
        """One of the spans that `probes` asked for, or several one behind the other: no place can be told from it."""

    def survey(self, chunk: Chunk) -> None:  # noqa: B027  (methods without surveys need none)
        """Gathers statistics of one chunk; `self.turn` is the survey's number."""

    def conclude(self) -> None:  # noqa: B027
        """All chunks of the survey numbered `self.turn` were seen."""

    @abstractmethod
    def merge(self, chunk: Chunk, out: torch.Tensor) -> None:
        """The merged chunk into `out`, which has the output's dtype and the chunk's length."""
