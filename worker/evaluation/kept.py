"""Answer sheets that need not be asked for again: those of the cache, and those of this job's earlier attempts."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.evaluation.identity import Key
from worker.evaluation.sheets import Sheet


class Kept:
    """Sheets by their keys. A new one is written to the journal before anybody is told.

    Files are JSON lines: the key's fields, and the sheet as `body`.
    """

    def __init__(self, *known: Path | None, journal: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self._journal = journal
        self._tell = tell
        files = [path for path in (*known, journal) if path and path.exists()]
        self._sheets = {_key(record): record["body"] for path in files for record in _records(path)}

    def find(self, key: Key) -> Sheet | None:
        """The sheet, if it is known."""
        found = self._sheets.get(key)
        return Sheet.model_validate(found) if found else None

    def keep(self, key: Key, sheet: Sheet) -> None:
        """Remember a new sheet, over the end of this process."""
        record = {**asdict(key), "body": sheet.model_dump(mode="json")}
        with self._journal.open("a") as lines:
            lines.write("\n" + json.dumps(record) + "\n")  # what comes after half a line stands on its own
        self._sheets[key] = record["body"]
        self._tell(record)


def _key(record: dict[str, Any]) -> Key:
    return Key(model=record["model"], task=record["task"], settings=record["settings"])


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines: the last of a killed attempt may be half a line."""
    with path.open() as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue
