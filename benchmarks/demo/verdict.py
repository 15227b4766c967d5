"""What the measurement says, in words and as a table: as it is, with the control beside it."""

from rich.table import Table

from benchmarks.demo.measure import Measured

MARGIN = 0.02
"""differences below two points on so little text are none"""


def table(found: Measured) -> Table:
    """Losses and shares of every model; the matched control is as far from the base as the restored model is."""
    shown = Table("model", box=None, pad_edge=False)
    for head in ("general loss", "math loss", "forgetting undone", "gain kept"):
        shown.add_column(head, justify="right")
    names = {"base": found.base, "adapted": found.adapted, "restored": found.restored}
    names |= {_uniform(t, found=found): loss for t, loss in found.uniform.items()}
    for name, loss in names.items():
        numbers = (f"{loss.general:.3f}", f"{loss.domain:.3f}", f"{found.undone(loss):.0%}", f"{found.kept(loss):.0%}")
        shown.add_row(name, *numbers, style="bold" if name == "restored" else "")
    return shown


def _uniform(t: float, *, found: Measured) -> str:
    return f"uniform t = {t:.2f}" + (", matched" if t == found.strength else "")


def sentence(found: Measured) -> str:
    """The verdict: what was regained, what it cost, and what the simple control gives at the same price."""
    kept, undone = found.kept(found.restored), found.undone(found.restored)
    control = found.uniform_undone(kept=kept)
    return (
        f"restored undoes {undone:.0%} of the forgetting and keeps {kept:.0%} of the gain; "
        f"{comparison(undone, control)} uniform interpolation, which undoes {control:.0%} where it keeps as much"
    )


def comparison(undone: float, control: float) -> str:
    """How the restored model stands to the control at an equal share of the gain kept."""
    if abs(undone - control) <= MARGIN:
        return "as good as"
    return "better than" if undone > control else "here worse than"
