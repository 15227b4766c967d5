"""The gate: whether a result may be published. An interval's lower end decides, so that luck does not pass."""

from collections.abc import Iterator

from app.recipes.evaluation import Gate
from worker.evaluation.measures import Measures, Summary
from worker.report import schema


def judge(gate: Gate, measures: Measures) -> schema.Gate:
    """The gate with what it says of these measures; a share that is not defined does not pass."""
    sides = (
        ("retention", gate.min_retention, measures.retention), ("gain kept", gate.min_gain_kept, measures.gain_kept),
    )
    reasons = tuple(reason for name, least, summary in sides for reason in _reasons(name, least, summary))
    return schema.Gate(**gate.model_dump(), passed=not reasons, reasons=reasons)


def _reasons(name: str, least: float | None, summary: Summary | None) -> Iterator[str]:
    if least is None:
        return
    mean = summary.mean if summary else None
    if mean is None or mean.value is None:
        yield f"{name} is not defined: nothing was {'gained' if name == 'gain kept' else 'forgotten'} on these tasks"
    elif mean.low is None:
        yield f"{name} is {mean.value:.3f} and has no interval: there are too few items"
    elif mean.low < least:
        yield f"{name} is {mean.value:.3f}, its interval begins at {mean.low:.3f}; {least:g} is asked for"
