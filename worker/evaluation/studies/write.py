"""What a study leaves on disk: report, pictures, and its exports as documents."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from worker.evaluation.studies.export import study_table, to_csv, to_parquet
from worker.evaluation.studies.page import page
from worker.evaluation.studies.pictures import draw
from worker.evaluation.studies.schema import Study
from worker.report.manifest import canonical

MEDIA = {
    "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet", "html": "text/html; charset=utf-8",
}  # fmt: skip


def write(report: Study, *, folder: Path) -> Study:
    """Write report.json, figures/ and exports.json; the report with its pictures' words."""
    pictures = folder / "figures"
    whole = report.model_copy(update={"figures": draw(report, folder=pictures)})
    table = study_table(whole)
    made = {"csv": to_csv(table), "parquet": to_parquet(table), "html": page(whole, pictures=pictures)}
    (folder / "report.json").write_bytes(canonical(whole.model_dump(mode="json")))
    (folder / "exports.json").write_bytes(canonical({name: document(name, data) for name, data in made.items()}))
    return whole


def document(name: str, data: bytes) -> dict[str, Any]:
    """As it is kept: a JSON document."""
    return {"media_type": MEDIA[name], "base64": b64encode(data).decode()}
