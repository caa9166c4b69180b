"""The reader's site: `make site`. Pages are the Markdown files and notebooks of the repository, as they are stored.

Nothing is fetched: outputs come from the notebooks, formulas become MathML while the site is built. What is run are the
short examples of the API pages, in docs/examples, and of each lesson the few lines that its explorer needs (see
`moving`), so that it moves on a page without a kernel.
"""

import inspect
import os
import re
import runpy
import shutil
import sys
import tomllib
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from hashlib import sha256
from html import escape
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from docs import moving  # noqa: E402
from docs.formulas import FORMULAS  # noqa: E402
from docs.lessons import cards, download, figures, lessons, page_of, thumbnail  # noqa: E402

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = _PROJECT["urls"]["Repository"]
EXAMPLES, PICTURES = ROOT / "docs" / "examples", ROOT / "docs" / "api" / "pictures"
EXPLORERS = ROOT / "docs" / "api" / "explorers"
_log = logging.getLogger(__name__)

project = _PROJECT["name"]
release = _PROJECT["version"]
language = "en"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.rst", "docs/api/*.rst", "notebooks/*.md", "notebooks/*.ipynb"]
include_patterns += ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "site", "runs", "build", "tests", "**/.ipynb_checkpoints"]  # not even looked into
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
extensions += ["sphinx.ext.linkcode", "sphinx_copybutton"]
nitpicky = False

# Lessons
nb_execution_mode = "off"
# A live view has no kernel here: see `moving`.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js: dict[str, Any] = {}
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Fold the code"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# The glossary has plain HTML anchors, which GitHub follows too and MyST does not know; check_site.py follows them.
suppress_warnings = ["mystnb.unknown_mime_type", "myst.xref_missing"]

# API: one page a module, from the docstrings
autosummary_generate = True
autosummary_ignore_module_all = False
templates_path = [str(Path(__file__).parent / "templates")]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_numpy_docstring = False
default_role = "code"  # our docstrings write names in single backticks too

# Looks
html_use_index = False  # the search finds the same in less
html_theme = "furo"
html_title = "From image tags to masks"
# With a font that has a MATH table, for devices that bring none: brackets grow with what they hold.
html_static_path = ["static", f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSerif.ttf"]
html_css_files = ["site.css"]
html_js_files = [("enlarge.js", {"defer": "defer"}), ("explorers.js", {"defer": "defer"})]
html_theme_options = {
    "top_of_page_buttons": [],
    "footer_icons": [{"name": "The repository", "url": REPOSITORY, "html": "Repository", "class": ""}],
}
copybutton_selector = "div.cell_input pre, div.highlight-python pre, div.highlight-bash pre, div.highlight-default pre"
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style = "friendly"

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)([^)\s]*)(?=\))")


def _adapt_links(app: Sphinx, page: str, source: list[str]) -> None:
    """What is right elsewhere and not here: a badge from the network, links to what is no page; the index's cards."""
    pages = app.env.found_docs

    def adapted(link: re.Match[str]) -> str:
        target = os.path.normpath(Path(page).parent / link[1])
        module = "docs/api/" + target.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module in pages:
            return f"/{module}.rst"
        if os.path.splitext(target)[0] in pages or not (ROOT / target).exists():
            return link[0]
        if target.endswith((".png", ".svg")):  # comes along with the site
            return link[0]
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{target}{link[2]}"

    text = source[0].replace("{{ lessons }}", cards()) if page == root_doc else source[0]
    for lesson in lessons():
        if page == f"notebooks/{lesson.page}":
            text = page_of(lesson, text, REPOSITORY, moving.html(lesson.page, EXPLORERS / lesson.page))
    source[0] = _LINK.sub(adapted, text)


def _add_files(app: Sphinx, error: Exception | None) -> None:
    """What pages name and Sphinx does not copy: thumbnails, figures, photographs, explorers, notebooks to run."""
    if error is None:
        for folder in ("thumbnails", "downloads", "figures"):
            (Path(app.outdir) / folder).mkdir(exist_ok=True)
        photographs = "docs/pictures/photographs"
        shutil.copytree(ROOT / photographs, Path(app.outdir) / photographs, dirs_exist_ok=True)
        tiles = Path(app.outdir) / "explorers"
        shutil.copytree(EXPLORERS, tiles, ignore=shutil.ignore_patterns("*.json"), dirs_exist_ok=True)
        for lesson in lessons():
            for name, png in figures(lesson):
                (Path(app.outdir) / "figures" / name).write_bytes(png)
            (Path(app.outdir) / "thumbnails" / f"{lesson.page}.png").write_bytes(thumbnail(lesson))
            (Path(app.outdir) / "downloads" / f"{lesson.page}.ipynb").write_text(download(lesson), encoding="utf-8")


def _plain_bars(_: Sphinx, *what: Any) -> None:
    """In a docstring |x| is an absolute value; reStructuredText would look for a substitution."""
    lines: list[str] = what[-1]
    for i, line in enumerate(lines):
        parts = re.split(r"(`+[^`]*`+)", line)
        lines[i] = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where [source] leads: the lines of a function or class in the repository."""
    try:
        found: Any = sys.modules[info["module"]]
        for name in info["fullname"].split("."):
            found = inspect.unwrap(getattr(found, name))
        lines, first = inspect.getsourcelines(found)
        path = Path(inspect.getsourcefile(found) or "").relative_to(ROOT)
    except (AttributeError, KeyError, TypeError, OSError, ValueError):  # a constant, or a part of another package
        return None
    return f"{REPOSITORY}/blob/main/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def _draw_examples(_: Sphinx) -> None:
    """Run docs/examples, each named after the function that it shows, and keep what they draw beside the API pages."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLES.glob("*.py"):
        drawn = PICTURES / f"{path.stem}.png"
        if not drawn.is_file() or drawn.stat().st_mtime < path.stat().st_mtime:
            with redirect_stdout(StringIO()) as said:
                figure = runpy.run_path(str(path))["figure"]
            drawn.write_bytes(figure._repr_png_())
            drawn.with_suffix(".txt").write_text(f"{figure!r}\n{said.getvalue()}", encoding="utf-8")


def _draw_explorers(_: Sphinx) -> None:
    """Every state of the lessons' explorers, two lessons at a time, where the notebook is newer than what is there."""
    drawn = {lesson.page: EXPLORERS / lesson.page for lesson in lessons()}
    old = [
        page
        for page, folder in drawn.items()
        if not (folder / "frames.json").is_file()
        or (folder / "frames.json").stat().st_mtime < (ROOT / "notebooks" / f"{page}.ipynb").stat().st_mtime
    ]
    for page in old:
        shutil.rmtree(drawn[page], ignore_errors=True)
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        list(workers.map(moving.draw, old, [drawn[page] for page in old]))


def _add_example(_: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Below a docstring its formula; for a function that has an example, that and its picture too."""
    path = EXAMPLES / f"{name}.py"
    if name in FORMULAS:
        lines += ["", ".. rubric:: Formula", "", ".. math::", "", f"   {FORMULAS[name]}", ""]
    if not path.is_file():
        return
    formula, code = re.fullmatch(r'r"""(.*?)"""\n+(.*)', path.read_text(encoding="utf-8"), re.DOTALL).groups()  # type: ignore[union-attr]
    alt, *said = (PICTURES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    lines += ["", ".. rubric:: Formula", "", *formula.strip().splitlines(), "", ".. rubric:: Example", ""]
    lines += [".. code-block:: python", "", *(f"   {line}" for line in code.splitlines()), ""]
    lines += [".. code-block:: text", "", *(f"   {line}" for line in said), ""]
    lines += [f".. image:: /docs/api/pictures/{name}.png", f"   :alt: {alt}", "   :class: api-example", ""]


def _skip_member(_: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple: its own docstring says more than "Alias for field number 0"."""
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None


def _mathml(node: nodes.math | nodes.math_block, display: str) -> str:
    """A formula as MathML, which browsers draw themselves: no script, no fonts, no network."""
    formula = node.astext()
    try:
        mathml = convert(formula, display=display)
        ElementTree.fromstring(mathml)  # what the converter does not know can come out as anything
    except Exception as error:
        _log.warning("formula %r: expected TeX that latex2mathml knows, got %s", formula, error, location=node)
        return f"<code>{escape(formula)}</code>"
    return str(mathml)


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def _page_code() -> str:
    """A hash of all code that pages are made with: another one, and every page is made anew."""
    root = Path(__file__).parent
    code = sorted([*root.glob("*.py"), *(root.parent / "rsepm_edu").rglob("*.py")])
    return sha256(b"".join(path.read_bytes() for path in code)).hexdigest()


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.connect("source-read", _adapt_links)
    app.connect("build-finished", _add_files)
    app.connect("builder-inited", _draw_examples)
    app.connect("builder-inited", _draw_explorers)
    app.connect("autodoc-process-docstring", _plain_bars)
    app.connect("autodoc-process-docstring", _add_example, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", _skip_member)
    # Pages that are kept from an earlier build name pictures that this code made.
    app.add_config_value("page_code", _page_code(), "env", types=[str])
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
