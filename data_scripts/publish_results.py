"""Bring every results/*/table.json to its readers: into the tables of docs/results.md, and into the package
for lesson 12.

The copies in the package are for where there is no repository, on Colab say. docs/results.md has a place for each
table that it shows, between the comments RESULTS:name and END:name.
"""

import argparse
import re
from pathlib import Path

from rsepm_edu.evaluation.tables import overview, read_rows
from rsepm_edu.files import atomic_write_text

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "rsepm_edu" / "course" / "numbers"
PAGE = ROOT / "docs" / "results.md"


def main() -> None:
    """Copies of tables that are gone are removed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    tables = {path.parent.name: path for path in (ROOT / "results").glob("*/table.json")}
    for name, path in tables.items():
        atomic_write_text(COPIES / f"{name}.json", path.read_text("utf-8"))
    for copy in COPIES.glob("*.json"):
        if copy.stem not in tables:
            copy.unlink()
    atomic_write_text(PAGE, with_tables(PAGE.read_text("utf-8"), tables))


def with_tables(text: str, tables: dict[str, Path]) -> str:
    """The text with every table between RESULTS and END written anew."""

    def table(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- RESULTS:{name} -->\n{overview(read_rows(tables[name]))}<!-- END:{name} -->"

    return re.sub(r"<!-- RESULTS:(\w+) -->\n.*?<!-- END:\1 -->", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
