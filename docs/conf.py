"""How Sphinx builds these pages: python3 tasks.py docs."""

from __future__ import annotations

import floodem

project = "floodem"
author = "the floodem authors"
version = release = floodem.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "floodem"
html_show_copyright = False

myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
