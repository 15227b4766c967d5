"""The journal of a study: one JSON line per measured cell, so that a killed study goes on where it was."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.evaluation.sheets import Sheet


class Cellbook:
    """Answer sheets by cell and task. Tied to a plan's digest: another plan starts anew.

    `like` holds any model's sheets of the same tasks: items are the same for all models and are not written again.
    """

    def __init__(self, path: Path, *, plan: str, like: Mapping[str, Sheet]) -> None:
        self._path = path
        self._like = like
        records = _records(path)
        same = bool(records) and records[0].get("plan") == plan
        self.found = {record["cell"]: self._read(record["sheets"]) for record in records[1:]} if same else {}
        if not same:
            path.write_text(json.dumps({"plan": plan}) + "\n")

    def keep(self, key: str, sheets: Mapping[str, Sheet]) -> None:
        """A cell is measured."""
        parts = {task: self._parts(sheet) for task, sheet in sheets.items()}
        with self._path.open("a") as lines:
            lines.write("\n" + json.dumps({"cell": key, "sheets": parts}) + "\n")  # half a line before it ends here
        self.found[key] = dict(sheets)

    def _parts(self, sheet: Sheet) -> dict[str, Any]:
        like = self._like[sheet.task]
        weights = {} if sheet.weights == like.weights else {"weights": list(sheet.weights)}
        return {"values": list(sheet.values), **weights}

    def _read(self, parts: Mapping[str, Any]) -> dict[str, Sheet]:
        return {
            task: self._like[task].model_copy(update={
                "values": tuple(part["values"]), "weights": tuple(part.get("weights", self._like[task].weights)),
            })
            for task, part in parts.items()
        }  # fmt: skip


def _records(path: Path) -> list[dict[str, Any]]:
    """All whole lines that say what they should."""
    found: list[dict[str, Any]] = []
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            needed = {"cell", "sheets"} if found else {"plan"}
            if isinstance(record, dict) and needed <= set(record):
                found.append(record)
    return found
