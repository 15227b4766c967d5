"""A study as one HTML file that needs nothing else: tables and pictures, no scripts, nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from worker.evaluation.bootstrap import Estimate
from worker.evaluation.studies.schema import Outcome, Study

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2328;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid #d8dee4;padding:.25rem .6rem;text-align:left}
td.n{text-align:right}img{max-width:100%}figure{margin:1.5rem 0}figcaption{color:#57606a}.wide{overflow-x:auto}
"""
Row = Sequence[str | float | int | None]


def page(report: Study, *, pictures: Path) -> bytes:
    """The page; `pictures` holds what `report.figures` names. Everything that a caller wrote is escaped."""
    parts = [
        f"<h1>Study {escape(report.job['id'])}</h1><p>{escape(report.verdict)}</p>", _pictures(report, pictures),
        "<h2>Chosen merges</h2>", _outcomes(report),
        "<h2>By domain</h2>", _domains(report), "<h2>Share of each expert's gain that is kept</h2>", _shares(report),
        "<h2>Models and tasks</h2>", _models(report), "<h2>Similarity of task vectors</h2>", _similarity(report),
        "<h2>All merges</h2>", _cells(report),
    ]  # fmt: skip
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Study {escape(report.job["id"])}</title>'
    return f"{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n".encode()


def _pictures(report: Study, folder: Path) -> str:
    made = []
    for name, words in report.figures.items():
        data = b64encode((folder / f"{name}.png").read_bytes()).decode()
        image = f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'
        made.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    return "".join(made)


def _outcomes(report: Study) -> str:
    head = ("stage", "experts", "method", "settings", "Macro-Gain", "Macro-OG", "over data sets: Gain", "OG",
            "on calibration", "best of sweep", "spread", "emerged", "lost")  # fmt: skip
    kind = report.main_kind
    return table(head, (
        (
            one.stage, " + ".join(one.experts), one.method, _settings(one.settings),
            _shown(one.macro[kind].gain), _shown(one.macro[kind].og),
            _shown(one.macro_datasets[kind].gain), _shown(one.macro_datasets[kind].og),
            one.calibration_gain, one.sensitivity.best, one.sensitivity.deviation, one.emerged, one.lost,
        )
        for one in report.outcomes
    ))  # fmt: skip


def _domains(report: Study) -> str:
    names = list(dict.fromkeys(name for one in report.outcomes for name in one.domains))
    return table(("experts", "method", *names), (
        (" + ".join(one.experts), one.method, *(_domain(one, name) for name in names)) for one in report.outcomes
    ))  # fmt: skip


def _domain(one: Outcome, name: str) -> str:
    return "; ".join(f"Gain {_shown(figures.gain)}" for figures in one.domains.get(name, {}).values())


def _shares(report: Study) -> str:
    return table(("merge", "method", "expert", "domain", "share kept"), (
        (" + ".join(one.experts), one.method, share.expert, share.domain, _shown(share.share))
        for one in report.outcomes for share in one.shares
    ))  # fmt: skip


def _models(report: Study) -> str:
    tasks = [row.task for row in report.tasks if row.on == "held_out"]
    return table(("model", "commit", "norm of task vector", *tasks), (
        (model.repo, model.commit[:12], model.norm, *(_shown(model.scores[task]) for task in tasks))
        for model in report.models
    ))  # fmt: skip


def _similarity(report: Study) -> str:
    pairs = table(("one", "other", "L2", "cosine"), ((*pair.experts, pair.l2, pair.cosine) for pair in report.pairs))
    ranks = table(("method", "similarity", "against", "Spearman's rho", "p", "n"), (
        (one.method, one.similarity, one.against, one.rank.rho, one.rank.p, one.rank.n) for one in report.correlations
    ))  # fmt: skip
    return pairs + ranks


def _cells(report: Study) -> str:
    kind = report.main_kind
    return table(("stage", "experts", "method", "settings", "Macro-Gain", "Macro-OG", "emerged", "lost"), (
        (row.stage, " + ".join(row.experts), row.method, _settings(row.settings), row.macro_gain.get(kind),
         row.macro_og.get(kind), row.emerged, row.lost)
        for row in report.cells
    ))  # fmt: skip


def _settings(settings: Mapping[str, float | int]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _shown(figure: Estimate) -> str:
    if figure.value is None:
        return "-"
    interval = "" if figure.low is None else f" [{figure.low:+.4f}, {figure.high:+.4f}]"
    return f"{figure.value:+.4f}{interval}"


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """An HTML table; everything in it is escaped."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_field, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _field(value: str | float | None) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="n">{"-" if value is None else f"{value:.4f}" if isinstance(value, float) else value}</td>'
