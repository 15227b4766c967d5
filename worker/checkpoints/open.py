"""Opening a model, whole or an adapter of the base."""

from pathlib import Path

from app.hub.adapters import ADAPTER_CONFIG
from worker.checkpoints.adapter import AdaptedCheckpoint
from worker.checkpoints.reader import Checkpoint


def is_adapter(path: Path) -> bool:
    """Whether this directory holds a PEFT adapter, which is nothing without its base."""
    return (path / ADAPTER_CONFIG).is_file()


def open_model(path: Path, *, base: Path) -> Checkpoint:
    """The checkpoint in `path`; an adapter is applied to the one in `base` while it is read.

    Raises `SpearError` as `Checkpoint.open` and `AdaptedCheckpoint.apply` do.
    """
    return AdaptedCheckpoint.apply(path, base=base) if is_adapter(path) else Checkpoint.open(path)
