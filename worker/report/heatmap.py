"""The data of the heatmap: scores by module and layer, as plain lists."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from worker.report.schema import Heatmap, Outside, Row

Value = TypeVar("Value")

ORDER = ("q", "k", "v", "o", "gate", "up", "down")
"""From the block's input to its output; other module types follow by name."""


def heatmap(rows: Sequence[Row]) -> Heatmap:
    """Cells of module x layer; tensors without a layer stand outside of the grid."""
    inside = [row for row in rows if row.layer is not None]
    modules = sorted({row.module_type for row in inside}, key=_rank)
    layers = sorted({row.layer for row in inside if row.layer is not None})
    cells: dict[tuple[str, int | None], list[Row]] = {}
    for row in inside:
        cells.setdefault((row.module_type, row.layer), []).append(row)

    def grid(value: Callable[[list[Row]], Value]) -> tuple[tuple[Value, ...], ...]:
        return tuple(tuple(value(cells.get((module, layer), [])) for layer in layers) for module in modules)

    return Heatmap(
        modules=tuple(modules),
        layers=tuple(layers),
        score=grid(lambda cell: _mean([row.score for row in cell])),
        relative_change=grid(lambda cell: _mean([row.relative_change for row in cell])),
        snr=grid(lambda cell: _mean([row.snr for row in cell])),
        swci=grid(lambda cell: _mean([row.swci for row in cell])),
        svdr=grid(lambda cell: _mean([row.svdr for row in cell])),
        restored=grid(lambda cell: fmean(row.selected for row in cell) if cell else 0.0),
        outside=tuple(_outside(row) for row in rows if row.layer is None),
    )


def _outside(row: Row) -> Outside:
    return Outside(name=row.name, module_type=row.module_type, score=row.score, selected=row.selected)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rank(module: str) -> tuple[int, str]:
    return (ORDER.index(module) if module in ORDER else len(ORDER), module)
