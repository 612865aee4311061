"""How the site is built: `make docs`. Pages are MyST Markdown, the reference comes from docstrings (`_ext`)."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
for folder in ("", "backends", "cli", "docs/_ext"):
    sys.path.insert(0, str(DOCS.parent / folder))

from mdsample import __version__  # noqa: E402

project = "mdsample"
author = "the mdsample developers"
copyright = "the mdsample developers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.viewcode", "sphinx_copybutton", "public"]
exclude_patterns = ["data"]
myst_enable_extensions = ["colon_fence", "deflist"]
#: sections down to this level can be linked to, by the anchor that GitHub gives them
myst_heading_anchors = 4
#: help texts have options in them
smartquotes = False
#: blocks without a language are commands with their output, which no lexer reads as a whole
highlight_language = "text"
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
python_maximum_signature_line_length = 88
toc_object_entries = False

html_theme = "furo"
html_title = f"mdsample {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "_static/icon.svg"
pygments_dark_style = "monokai"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0a6b5e", "color-brand-content": "#0a6b5e"},
    "dark_css_variables": {"color-brand-primary": "#5fd3bc", "color-brand-content": "#5fd3bc"},
}
