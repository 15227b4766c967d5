"""The points of a merge's trade-off as files: CSV, Parquet, and one HTML page with the picture."""

import json
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from worker.evaluation.studies.export import Value, frontier_table, to_csv, to_parquet
from worker.evaluation.studies.page import STYLE, table
from worker.evaluation.studies.write import document
from worker.report.manifest import canonical

PICTURE = "figures/tradeoff.png"


def write_frontier(folder: Path, *, output: Path) -> bool:
    """`exports.json` in `folder`, from its report.json and the picture in `output`; whether there were any points."""
    report = json.loads((folder / "report.json").read_text())
    points = (report.get("evaluation") or {}).get("points") or []
    if not points:
        return False
    rows = frontier_table(points)
    made = {"csv": to_csv(rows), "parquet": to_parquet(rows), "html": _page(report, rows, picture=output / PICTURE)}
    (folder / "exports.json").write_bytes(canonical({name: document(name, data) for name, data in made.items()}))
    return True


def _page(report: dict[str, Any], rows: list[dict[str, Value]], *, picture: Path) -> bytes:
    title = f"Trade-off of {report['job']['id']}"
    image = ""
    if picture.exists():
        data = b64encode(picture.read_bytes()).decode()
        image = f'<figure><img alt="Retention against gain kept" src="data:image/png;base64,{data}"></figure>'
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    body = f"<h1>{escape(title)}</h1><p>{escape(report['verdict'])}</p>{image}"
    points = table(list(rows[0]), (list(row.values()) for row in rows))
    return f"{head}<style>{STYLE}</style></head><body>{body}<h2>All points</h2>{points}</body></html>\n".encode()
