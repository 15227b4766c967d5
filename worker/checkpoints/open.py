"""Opening a model, whole or an adapter of the base."""

from pathlib import Path

from app.hub.adapters import ADAPTER_CONFIG
from worker.checkpoints.adapter import AdaptedCheckpoint
from worker.checkpoints.reader import Checkpoint


def open_model(path: Path, *, base: Path) -> Checkpoint:
    """The checkpoint in `path`; an adapter is applied to the one in `base` while it is read.

    Raises `SpearError` as `Checkpoint.open` and `AdaptedCheckpoint.apply` do.
    """
    if (path / ADAPTER_CONFIG).is_file():
        return AdaptedCheckpoint.apply(path, base=base)
    return Checkpoint.open(path)
