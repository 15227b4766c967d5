"""The journal of a merge: one JSON line per finished tensor, so that a killed merge goes on where it was.

A line is a claim, checked on resumption against the bytes on disk by the file's running checksum, and never trusted:
therefore neither the journal nor the weights need an fsync to be safe, and a claim that does not hold costs only time.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


class Journal:
    """Append-only; tied to a plan's digest: another plan starts anew."""

    def __init__(self, path: Path, *, plan: str) -> None:
        self.path = path
        self.entries = _read(path, plan=plan)
        fresh = not self.entries
        self._stream = path.open("w" if fresh else "a", buffering=1)
        if fresh:
            try:
                self._say({"plan": plan})
            except OSError:
                self.close()
                raise

    def record(self, name: str, *, file: str, checksum: int, note: str) -> None:
        """A tensor is finished: `checksum` is that of the file from its first byte to the tensor's last."""
        self._say({"tensor": name, "file": file, "checksum": checksum, "note": note})

    def close(self) -> None:
        with suppress(OSError):  # a claim that finds no room is one that was never made
            self._stream.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _say(self, entry: dict[str, Any]) -> None:
        # the leading newline ends a line that a kill cut short
        self._stream.write("\n" + json.dumps(entry) + "\n")


def _read(path: Path, *, plan: str) -> dict[str, dict[str, Any]]:
    """The finished tensors by name, in the order of their finishing; empty for another plan."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    entries = [entry for line in lines if (entry := _parse(line))]
    if not entries or entries[0].get("plan") != plan:
        return {}
    return {entry["tensor"]: entry for entry in entries[1:] if {"tensor", "file", "checksum", "note"} <= set(entry)}


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
