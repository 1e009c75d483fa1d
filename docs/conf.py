"""The pages as a site that needs no internet, neither to be built nor to be read: ``make site``, into build/site.

The Markdown is that of the checkout, read by myst-parser; only the table of contents is put in here, so that the files
stay plain. Equations are plain text: nothing has to be rendered by a script from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "rjepa"
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["examples/node/node_modules"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "rjepa"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
smartquotes = False
highlight_language = "text"
pygments_style = "default"
html_theme_options = {"footer_icons": []}
html_static_path: list[str] = []

ORDER = {
    "Begin": ["quickstart", "trackers", "recordings", "notebook", "examples"],
    "Read": ["dashboard", "reading", "http", "wire", "figures"],
    "Understand": ["mathematics", "learning", "detection", "learn", "performance", "glossary"],
    "Operate": ["operation", "settings", "faults", "promises"],
}
"""Pages in the order of the table of contents; what is named nowhere comes last."""


def contents(there: set[str]) -> str:
    """The table of contents, of the pages ``there`` are."""
    named = {name for names in ORDER.values() for name in names}
    groups = [(title, [name for name in names if name in there]) for title, names in ORDER.items()]
    groups.append(("More", sorted(there - named - {root_doc})))
    blocks = [f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(names) for title, names in groups if names]
    return "\n".join(f"\n{block}\n```" for block in blocks)


def _put_in(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        source[0] += contents({path.stem for path in Path(app.srcdir).glob("*.md")})


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _put_in)
