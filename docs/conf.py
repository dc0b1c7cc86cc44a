"""The site: the pages of this folder, built by `make docs`; its pages need no network."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from gcn_cli.version import VERSION
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project, author = "gcn", "the gcn authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["built"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"gcn {VERSION}"
html_static_path: list[str] = []
html_show_sourcelink = html_copy_source = False
suppress_warnings = ["misc.highlighting_failure"]  # of the list of floors in reading.md
nitpicky = False  # types of torch and Pillow have no pages here
autodoc_typehints = "none"  # spelt out, unions of pictures and arrays fill the page
autodoc_member_order = "bysource"
myst_url_schemes = ("http", "https")


def _as_written(
    app: Sphinx, what: str, name: str, it: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text with names in backticks, and bars and stars mean themselves."""
    lines[:] = [
        re.sub(r"`([^`]+)`", r"``\1``", line.replace("|", r"\|").replace("*", r"\*"))
        for line in lines
    ]


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Equations as MathML, which browsers draw by themselves."""
    app.connect("autodoc-process-docstring", _as_written)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer_name = "mathml"  # type: ignore[attr-defined]
