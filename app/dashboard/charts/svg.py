"""The few words of SVG that the charts are written in. Everything from outside is escaped here."""

from collections.abc import Iterable
from html import escape

Attribute = str | float | None


def element(name: str, *inside: str, **attributes: Attribute) -> str:
    """One element; `class_` and `text_anchor` become `class` and `text-anchor`, attributes of None are left out.

    `inside` is SVG already: text goes through `words`.
    """
    given = "".join(f' {_name(key)}="{_value(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{given}>{''.join(inside)}</{name}>" if inside else f"<{name}{given}/>"


def words(text: str) -> str:
    """Text of any origin as SVG."""
    return escape("".join(c for c in text if c.isprintable()))


def text(x: float, y: float, content: str, *, class_: str = "ink", anchor: str | None = None) -> str:
    """A line of text whose baseline begins (or by `anchor` ends, or is centred) at (x, y)."""
    return element("text", words(content), x=x, y=y, class_=class_, text_anchor=anchor)


def tip(content: str) -> str:
    """What is told of the element it stands in: by the pointer, and by screen readers."""
    return element("title", words(content))


def line(x1: float, y1: float, x2: float, y2: float, *, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float] | None], *, class_: str, inside: str = "") -> str:
    """Straight lines from point to point; None lifts the pen."""
    steps, down = [], False
    for point in points:
        if point is not None:
            steps.append(f"{'L' if down else 'M'}{number(point[0])} {number(point[1])}")
        down = point is not None
    return element("path", inside, d="".join(steps), class_=class_) if steps else ""


def chart(*inside: str, width: float, height: float, label: str, role: str = "img") -> str:
    """A whole picture of `width` x `height` pixels, or less in a narrower column; `label` is what it shows.

    `role` is `group` where links stand in it: within an `img` nobody would find them.
    """
    return element(
        "svg", tip(label), *inside, xmlns="http://www.w3.org/2000/svg", class_="chart", width=width,
        viewBox=f"0 0 {number(width)} {number(height)}", role=role, aria_label=label,
    )  # fmt: skip


def number(value: float) -> str:
    """At most two decimals: a hundredth of a unit is not seen."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: Attribute) -> str:
    return words(value) if isinstance(value, str) else number(value or 0.0)
