"""How the documentation is built: `make docs`, or sphinx-build of this folder."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from jupyter_client.manager import KernelManager

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the extensions beside this file

project = "gradsim"
author = "The gradsim authors"
release = version = version_of("gradsim")
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design", "docstrings", "stored"]
exclude_patterns = ["_build"]
smartquotes = False  # φ' is no quotation
nitpicky = True  # a name in backticks that leads nowhere fails

# Signatures without types: shapes, units and what may come stand in words beneath.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
add_module_names = False
python_use_unqualified_type_names = True
nitpick_ignore_regex = [("py:.*", r"(jax|jaxtyping|numpy|xarray|collections|typing|optax|flax|matplotlib)\..*")]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Every snippet runs, in a folder of its own, and one that fails is a warning, which ends `make docs`.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress
KernelManager.transport_encryption.default_value = "auto"  # or each kernel warns that others might listen
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE.parent / "build" / "docs-programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

html_theme = "pydata_sphinx_theme"
html_title = "gradsim"
html_static_path = ["_static"]
html_css_files = ["gradsim.css"]
html_extra_path = ["../figures/atlas.html"]
# Pages without others beside them have no list of them.
html_sidebars = {"*": [], "how_to/*": ["sidebar-nav-bs"], "reference/*": ["sidebar-nav-bs"]}
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # they are fetched, which a browser refuses of a site on disk
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "gradsim"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
