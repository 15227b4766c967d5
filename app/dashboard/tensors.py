"""The rows of the tensor table: sorted, narrowed, in pages, and as CSV. Pure."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import Code, SpearError

Row = Mapping[str, Any]
Order = Literal["asc", "desc"]
COLUMNS = {
    "name": "tensor", "module_type": "module", "layer": "layer", "parameters": "parameters", "score": "score",
    "snr": "SNR", "swci": "SWCI", "svdr": "SVDR", "relative_change": "relative change", "t": "t",
    "reason": "why",
}  # fmt: skip
"""what the table shows, by the names of a row's fields"""
FIRST = ("name", "module_type", "layer", "shape", "parameters", "selected", "t", "reason", "score", "snr", "swci",
         "svdr", "relative_change")  # fmt: skip
PER_PAGE = 25
WORDS = ("name", "module_type", "reason")


@dataclass(frozen=True, kw_only=True)
class View:
    """How the table is looked at."""

    sort: str = "score"
    order: Order = "desc"
    only: Literal["restored", "all"] = "restored"
    page: int = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """One page of it."""

    view: View
    rows: Sequence[Row]
    shown: int
    restored: int
    scored: int
    pages: int


def read_view(*, sort: str = "", order: str = "", only: str = "", page: int = 1) -> View:
    """A view from an address. Raises `SpearError(invalid_request)` for what there is not."""
    sort, only = sort or "score", only or "restored"
    order = order or ("asc" if sort in WORDS or sort == "layer" else "desc")
    if sort not in COLUMNS or order not in {"asc", "desc"} or only not in {"restored", "all"}:
        raise SpearError(Code.INVALID_REQUEST, f"the table cannot be sorted by {sort!r}, {order!r}, {only!r}")
    return View(sort=sort, order="asc" if order == "asc" else "desc",
                only="all" if only == "all" else "restored", page=page)  # fmt: skip


def table(rows: Sequence[Row], view: View) -> Table:
    """The page that the view asks for; a page beyond the last is the last. With nothing restored all are shown."""
    restored = [row for row in rows if row.get("selected")]
    wanted = restored if view.only == "restored" and restored else list(rows)
    pages = max(1, math.ceil(len(wanted) / PER_PAGE))
    number = min(max(1, view.page), pages)
    found = [whole(row) for row in sort_rows(wanted, view)[(number - 1) * PER_PAGE : number * PER_PAGE]]
    seen = View(sort=view.sort, order=view.order, only="restored" if wanted is restored else "all", page=number)
    return Table(
        view=seen, rows=found, shown=len(wanted), restored=len(restored), scored=len(rows), pages=pages
    )


def sort_rows(rows: Sequence[Row], view: View) -> list[Row]:
    """By one column, by name where equal; rows without a value stand last in either order."""
    named = sorted(rows, key=lambda row: str(row.get("name")))
    known = [row for row in named if row.get(view.sort) is not None]
    rest = [row for row in named if row.get(view.sort) is None]
    return sorted(known, key=lambda row: row[view.sort], reverse=view.order == "desc") + rest


def whole(row: Row) -> Row:
    """The row with all that the pages look for, null where a method does not tell it."""
    return dict.fromkeys((*FIRST, "selected", "shape")) | dict(row)


def cell_rows(rows: Sequence[Row], *, module: str, layer: int | None) -> list[Row]:
    """The tensors of one cell of the heatmap: several where experts of a mixture share it."""
    return [row for row in rows if row.get("module_type") == module and row.get("layer") == layer]


def csv_text(rows: Sequence[Row]) -> str:
    """All rows with all their fields; what would be a formula to a spreadsheet is quoted."""
    rest = sorted({name for row in rows for name in row} - set(FIRST) - {"tensor"})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*FIRST, *rest])
    for row in rows:
        writer.writerow([_field(row.get(name)) for name in (*FIRST, *rest)])
    return out.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return "x".join(str(one) for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return "'" + value
    return value
