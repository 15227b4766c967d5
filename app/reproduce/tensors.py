"""Which tensors of two weight files differ: their headers first, then their bytes, piece by piece."""

from collections.abc import Callable
from pathlib import Path

from app.hub.client import Hub
from app.hub.headers import LENGTH_BYTES, TensorInfo, header_size, parse_header
from app.hub.pins import Pin

PIECE = 8_000_000
Reader = Callable[[int, int], bytes]
"""`size` bytes of a file from `start` on: (start, size)"""


def on_disk(path: Path) -> Reader:
    """A file of this machine."""

    def read(start: int, size: int) -> bytes:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    return read


def on_hub(hub: Hub, pinned: Pin, path: str) -> Reader:
    """A file of a pinned repository, by range requests."""
    return lambda start, size: hub.read(pinned.repo, pinned.commit, path, start=start, size=size)


def differing(one: Reader, two: Reader, *, file: str, sizes: tuple[int, int]) -> dict[str, str]:
    """Tensors by name, with what is different about them. `sizes` are the files' own, in bytes.

    Raises `SpearError(header_invalid)` where one of them is no safetensors file.
    """
    ours, theirs = (_tensors(read, file=file, size=size) for read, size in zip((one, two), sizes, strict=True))
    found = {}
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            found[name] = "only in one of the two"
        elif (a.dtype, a.shape) != (b.dtype, b.shape):
            found[name] = f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        elif count := _bytes_apart(one, a, two, b):
            found[name] = f"{count} of {a.nbytes} bytes differ"
    return found


def _tensors(read: Reader, *, file: str, size: int) -> dict[str, TensorInfo]:
    length = header_size(read(0, LENGTH_BYTES), file=file, limit=100_000_000)
    return parse_header(read(LENGTH_BYTES, length), file=file, file_size=size, max_tensors=1_000_000)


def _bytes_apart(one: Reader, a: TensorInfo, two: Reader, b: TensorInfo) -> int:
    """How many bytes of a tensor differ."""
    count = 0
    for at in range(0, a.nbytes, PIECE):
        size = min(PIECE, a.nbytes - at)
        ours, theirs = one(a.offset + at, size), two(b.offset + at, size)
        if ours != theirs:
            count += sum(x != y for x, y in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    return count
