"""Which licence a merge carries, from its parents' own words."""

import re
from collections.abc import Sequence

from worker.pipeline.task import Input
from worker.report import markup

KNOWN = frozenset(
    (
        "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd",
        "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
        "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
        "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0",
        "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1",
        "lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr",
        "mpl-2.0", "odc-by", "odbl", "openmdw-1.0", "openmdw-1.1", "openrail++", "osl-3.0", "postgresql", "ofl-1.1",
        "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license", "fair-noncommercial-research-license",
        "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma", "unknown",
        "other",
    )
)
"""The Hub's licence identifiers: it refuses a commit whose card names any other outside of `license_name`."""


NON_COMMERCIAL = "may not be used commercially"
NO_DERIVATIVES = "does not allow changed versions to be passed on, and a merge is one"
SHARE_ALIKE = "asks for the same licence on whatever is made of it"
RESEARCH = "is for research only"
TERMS: dict[str, str] = {
    **{name: SHARE_ALIKE for name in KNOWN if name.startswith(("cc-by-sa", "gpl", "agpl", "odbl"))},
    **{name: NON_COMMERCIAL for name in KNOWN if name.startswith("cc-by-nc")},
    **{name: NO_DERIVATIVES for name in KNOWN if "-nd-" in name},
    **{name: RESEARCH for name in KNOWN if "research" in name or name in ("apple-amlr", "deepfloyd-if-license")},
}
"""What a licence asks for that others do not, as far as its identifier tells; its text counts, not this table."""


def fields(inputs: Sequence[Input]) -> dict[str, str]:
    """The card's licence fields: the parents' where they agree, `other` with a name where they do not."""
    stated = _stated(inputs)
    if not stated:
        return {}
    if len(stated) > 1:
        return {"license": "other", "license_name": "parents-differ"}
    if stated[0] in KNOWN:
        return {"license": stated[0]}
    name = re.sub(r"[^a-z0-9.-]+", "-", stated[0]).strip("-.")[:64]
    return {"license": "other", "license_name": name or "see-parents"}


def statement(inputs: Sequence[Input]) -> str:
    """What the reader has to know about the licence, in Markdown."""
    stated, silent = _stated(inputs), [source for source in inputs if not source.license]
    if not stated:
        return "None of the parents states a licence. Ask their authors before you use or pass on this model."
    if len(stated) > 1:
        claims = "; ".join(f"{markup.code(s.repo)}: {markup.text(s.license)}" for s in inputs if s.license)
        return f"**The parents' licences differ** ({claims}). A merge has to honour all of them.{_terms(inputs)}"
    carried = f"Carried over from the parents: {markup.text(stated[0])}."
    if silent:
        names = ", ".join(markup.code(source.repo) for source in silent)
        carried += f" {names} states no licence: check with its author."
    return carried + _terms(inputs)


def conflicts(inputs: Sequence[Input]) -> list[str]:
    """What the parents' licences ask for that cannot be had together, or not at all, by their identifiers."""
    stated = _stated(inputs)
    terms = {name: TERMS[name] for name in stated if name in TERMS}
    found = [f"{name} {words}" for name, words in terms.items() if words == NO_DERIVATIVES]
    alike = [name for name, words in terms.items() if words == SHARE_ALIKE]
    limiting = [name for name, words in terms.items() if words in (NON_COMMERCIAL, RESEARCH)]
    if len(alike) > 1:
        found.append(f"{' and '.join(alike)} each ask for themselves on whatever is made of them")
    found += [f"{one} asks for itself on whatever is made of it, and {other} adds limits to that"
              for one in alike for other in limiting]  # fmt: skip
    return found


def _terms(inputs: Sequence[Input]) -> str:
    """What to look at in the parents' licences, and where they cannot be honoured together."""
    known = [f"{name} {TERMS[name]}" for name in _stated(inputs) if name in TERMS]
    told = f" Note: {'; '.join(known)}." if known else ""
    clash = conflicts(inputs)
    return told + (f" **These cannot all be honoured: {'; '.join(clash)}.** Ask the authors." if clash else "")


def _stated(inputs: Sequence[Input]) -> list[str]:
    return sorted({source.license.strip().lower() for source in inputs if source.license and source.license.strip()})
