"""Groups of weights that a search moves together: attention and MLP by depth, embedding, head, norms."""

from collections.abc import Iterable, Mapping

from worker.scores.modules import BIAS, EMBEDDING, HEAD, NORM, place

_ATTENTION, _MLP = frozenset({"q", "k", "v", "o", "qkv"}), frozenset({"gate", "up", "down", "gate_up"})
Groups = Mapping[str, tuple[str, ...]]
"""names of weights by the group's name; every weight stands in one group"""


def grouped(names: Iterable[str], *, bands: int = 2) -> Groups:
    """The weights by group; attention and MLP in `bands` of depth, counted from the input (`attention.1/2`)."""
    names = list(names)
    layers = [layer for name in names if (layer := place(name).layer) is not None]
    depth = max(layers, default=0) + 1
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name, depth=depth, bands=bands), []).append(name)
    return {group: tuple(members) for group, members in sorted(groups.items())}


def finest(names: Iterable[str], *, most: int = 400) -> Groups:
    """Each weight by itself; in models of more than `most` weights, those of one kind in one layer together."""
    names = list(names)
    if len(names) <= most:
        return {name: (name,) for name in names}
    groups: dict[str, list[str]] = {}
    for name in names:
        where = place(name)
        groups.setdefault(f"{where.module_type}.{where.layer}", []).append(name)
    return {group: tuple(members) for group, members in groups.items()}


def split(groups: Groups, *, by: Iterable[str]) -> Groups:
    """The groups with those named in `by` cut into two halves of depth (`attention.1/2` into `.1/2a` and `.1/2b`)."""
    halved = set(by)
    found: dict[str, tuple[str, ...]] = {}
    for group, members in groups.items():
        if group not in halved or len(members) < 2:
            found[group] = members
            continue
        ordered = sorted(members, key=lambda name: (place(name).layer or 0, name))
        middle = len(ordered) // 2
        found[f"{group}a"], found[f"{group}b"] = tuple(ordered[:middle]), tuple(ordered[middle:])
    return found


def spread(values: Mapping[str, float], groups: Groups) -> dict[str, float]:
    """Each group's value for each of its weights."""
    return {name: values[group] for group, names in groups.items() for name in names}


def _group(name: str, *, depth: int, bands: int) -> str:
    where = place(name)
    if where.module_type in (EMBEDDING, HEAD):
        return where.module_type
    if where.module_type in (NORM, BIAS):
        return NORM
    if where.layer is None:
        return "other"
    part = "attention" if where.module_type in _ATTENTION else "mlp" if where.module_type in _MLP else "other"
    return f"{part}.{where.layer * bands // depth + 1}/{bands}"
