"""How Sphinx makes the site of these pages: `make docs`, with the extra `docs`."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the notebooks' kernels inherit it

from jaxgan import __version__  # noqa: E402 (found by the path above)

project = "jaxgan"
author = "the jaxgan authors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton",
              "mathematics", "repository", "reference"]
exclude_patterns = ["_build", "_ext", "**/.ipynb_checkpoints"]
highlight_language = "none"
nitpicky = False

# Markdown as GitHub reads it: formulas between dollars, anchors of headings.
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = False
myst_heading_anchors = 4
myst_update_mathjax = False
html_math_renderer = "mathml"

# The notebooks run when the site is made, and again only when they have changed; not at all with
# -D nb_execution_mode=off.
NOTEBOOKS = ("first_gan", "own_term_and_game", "open_a_run")
nb_execution_mode = "force"
nb_execution_timeout = 600  # seconds for a cell
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_ipywidgets_js = {}  # which would be loaded from elsewhere

autodoc_default_options = {"members": True, "special-members": "__call__", "member-order": "bysource"}
autodoc_typehints = "none"  # the signatures have them
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
maximum_signature_line_length = 88
python_trailing_comma_in_multi_line_signatures = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"jaxgan {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_exclude = ".linenos, .gp"


def setup(app):
    """Says what is missing before anything is read."""
    from sphinx.errors import ConfigError

    missing = [name for name in NOTEBOOKS if not (DOCS / "notebooks" / f"{name}.ipynb").is_file()]
    if missing:
        raise ConfigError(f"docs/notebooks lacks {', '.join(f'{name}.ipynb' for name in missing)}: the "
                          "tutorials are these notebooks, so fetch them, or take them out of NOTEBOOKS "
                          "in docs/conf.py and out of docs/tutorials.md")
