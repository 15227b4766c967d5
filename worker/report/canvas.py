"""One style for all pictures, and one way to write them: equal reports give equal bytes."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.linewidth": 0,
    "text.color": "#1f2328",
    "axes.labelcolor": "#57606a",
    "xtick.color": "#57606a",
    "ytick.color": "#1f2328",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
COLOURS = "Blues"
ACCENT = "#d1242f"
BASE = "#0969da"
ADAPTED = "#bc4c00"
MUTED = "#57606a"
GRID = "#d8dee4"
EMPTY = "#f0f2f4"
DPI = 140
PALETTE = 200
"""colours kept in the file: enough for two scales and smooth type, half of the bytes"""


def style() -> Any:
    """The context in which a figure has to be made and saved."""
    return rc_context(STYLE)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG without metadata, in a fixed palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()
    size = canvas.get_width_height(physical=True)
    picture = Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(colors=PALETTE, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


def short(name: str, *, length: int = 24) -> str:
    """A name that fits its place."""
    return name if len(name) <= length else name[: length - 1] + "…"


def stripped(name: str) -> str:
    """A tensor's name without what all of them have: `layers.3.self_attn.q_proj`."""
    part = name.partition("#")
    words = part[0].removesuffix(".weight").removeprefix("model.").removeprefix("transformer.")
    return words + (f" {part[2].replace('#', ' ')}" if part[2] else "")
