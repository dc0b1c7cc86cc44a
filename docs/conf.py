"""The site: the pages of this folder, built by `make docs`; its pages need no network."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from gcn_cli import __version__ as VERSION

sys.path.insert(0, str(Path(__file__).parent))

from generate_reference import PAGES

project, author = "gcn", "the gcn authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["built"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"gcn {VERSION}"
html_static_path: list[str] = []
html_show_sourcelink = html_copy_source = False
nitpicky = False  # types of torch and Pillow have no pages here
autodoc_typehints = "none"  # unions of images and arrays would fill the page
autodoc_member_order = "bysource"
myst_url_schemes = ("http", "https")


def _plain_docstring(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text with names in backticks: escape `|`, `*` and `@` for reST.

    Examples, which begin with >>>, stay as they are.
    """
    lines[:] = [
        line
        if line.lstrip().startswith((">>>", "..."))
        else re.sub(r"`([^`]+)`|[|*@]", lambda m: f"``{m[1]}``" if m[1] else f"\\{m[0]}", line)
        for line in lines
    ]


def _generated(app: Sphinx, name: str, source: list[str]) -> None:
    """The generated pages as the code says it now, whatever the files have."""
    if name in PAGES:
        source[0] = PAGES[name]()


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Generate the reference; write equations as MathML, which browsers render themselves."""
    app.connect("source-read", _generated)
    app.connect("autodoc-process-docstring", _plain_docstring, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer_name = "mathml"  # type: ignore[attr-defined]
