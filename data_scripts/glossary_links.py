"""Link the first use of every glossary word in a lesson to docs/glossary.md; put_sections.py runs it on each lesson.

Headings, code, formulas, links and references are passed over, but for a formula that is a word itself ($M_{rs}$).
A link that was set by hand on other words ("[sees](…#receptive-field)") counts as the first use if it comes first.
"""

import re
from collections.abc import Iterator
from typing import Any

PAGE = "../docs/glossary.md"

WORDS = {
    "plane": r"plane of FP and FN",
    "without-masks": r"without masks",
    "m-seg": r"\$M_\{seg\}\$|[Pp]seudo masks?",
    "m-rs": r"\$M_\{(?:rs|scg)\}\$|\bM_(?:rs|scg)\b",
    "m-dec": r"\$M_\{(?:dec|ep)\}\$",
    "losses": r"\$L_\{(?:cls|rec|seg)\}\$|tag loss",
    "puzzle": r"Puzzle-CAM",
    "cam": r"(?<![\w-])CAMs?\b|[Cc]lass activation maps?",
    "epm": r"EdgePredictMix|\bEPM\b",
    "ep": r"\bEdgePredict\b|\bEP\b",
    "rs": r"\bRecurSeed\b|\bRS\b",
    "union": r"\bFP(?:,| and) FN\b|\bFN and FP\b|\bFP\b|\bFN\b|\bIoU\b|\b[Uu]nion\b",
    "miou": r"\bmIoU\b",
    "tag": r"(?i:\btags?\b)(?! loss)",
    "mask": r"(?<![Pp]seudo )\b[Mm]asks?\b",
    "void": r"\b[Vv]oid\b",
    "theta": r"θ(?![₀-₉])|\$\\theta\$",
    "oracle": r"\boracles?\b",
    "features": r"\b[Ff]eatures?\b",
    "position": r"\b[Pp]ositions?\b|\b[Ss]tride\b",
    "pretext": r"\b[Pp]retext\b",
    "receptive-field": r"[Rr]eceptive fields?",
    "raw": r"\b[Rr]aw (?:scores?|maps?)\b|\b[Nn]ormalised maps?\b",
    "seed": r"\b[Ss]eed maps?\b",
    "scg": r"\bSCG\b",
    "pamr": r"\bPAMR\b",
    "cf": r"[Cc]onditional filter|\bCF\b",
    "decoder": r"\b[Dd]ecoders?\b|\b[Hh]ead [AB]\b",
    "teacher": r"\b[Tt]eacher\b|\b[Mm]oving average\b",
    "stop-gradient": r"\b[Ss]top gradient\b|\b[Nn]o gradient flows\b",
    "argmax": r"\b[Aa]rg-max\b",
    "crf": r"\bCRFs?\b",
    "walk": r"\b[Rr]andom walks?\b|\b[Aa]ffinit(?:y|ies)\b",
    "single-stage": r"\b[Ss]ingle-stage\b|\b[Mm]ulti-stage\b",
}
"""Anchor of the glossary to what its words look like; the longer words come before those that they contain."""

OURS = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(" + re.escape(PAGE) + r"#([\w-]+)\)")
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
PASSED_OVER = re.compile(
    r"^## References$.*?(?=^## |\Z)"  # names of papers
    r"|```.*?```|`[^`\n]+`|^#+ [^\n]*$|<summary>.*?</summary>|<[a-zA-Z/][^>]*>"
    r"|!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)|https?://\S+",
    re.DOTALL | re.MULTILINE,
)


def link_first_uses(notebook: Any) -> None:
    """Let each glossary word that a lesson uses be a link where it comes first, and nowhere else.

    Args:
        notebook: its text cells are changed in place.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for anchor, word in WORDS.items():
        linked = False
        for cell in cells:
            cell.source, linked = _with_one_link(cell.source, anchor, re.compile(word), linked)


def _with_one_link(text: str, anchor: str, word: re.Pattern[str], linked: bool) -> tuple[str, bool]:
    """The text with a link at the first use, if there was none before, and without further ones."""
    uses = sorted([*_links(text, anchor), *_plain(text, word)], key=lambda found: found.start())
    for use in reversed(uses[0 if linked else 1 :]):  # from the end, so that places stay right
        if use.re is OURS:
            text = text[: use.start()] + use[1] + text[use.end() :]
    if uses and not linked and uses[0].re is not OURS:
        text = f"{text[: uses[0].start()]}[{uses[0][0]}]({PAGE}#{anchor}){text[uses[0].end() :]}"
    return text, linked or bool(uses)


def _links(text: str, anchor: str) -> Iterator[re.Match[str]]:
    return (found for found in OURS.finditer(text) if found[2] == anchor)


def _plain(text: str, word: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Uses of a word in plain text."""
    passed = [found.span() for found in PASSED_OVER.finditer(text)]
    formulas = [found.span() for found in FORMULA.finditer(text)]
    for found in word.finditer(text):
        start, end = found.span()
        inside = any(a < end and start < b for a, b in passed)
        of_formula = any(a < end and start < b and not (start <= a and b <= end) for a, b in formulas)
        if not inside and not of_formula:
            yield found
