"""How the site is built: `make docs`. Broken references and links inside it fail the build."""

import sys
from pathlib import Path

import fmaudit_core

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "fmaudit"
author = "The fmaudit authors"
project_copyright = author
release = version = fmaudit_core.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "generated"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
smartquotes = False  # --out stays --out
html_theme = "furo"
html_title = "fmaudit"
html_copy_source = False

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
# shapes and units stand where types do, so they are words and no references
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Policies"]

# names of other packages: their sites are not asked when the docs are built
nitpick_ignore_regex = [(r"py:.*", r"(?!fmaudit_)\w+\..*")]

# `make docs-links` asks the network
linkcheck_ignore = [r"http://127\.0\.0\.1"]
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_workers = 4
