from importlib import metadata

project = "trio_pyjo_ws"
author = "The trio_pyjo_ws developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
release = metadata.version("trio-pyjo-ws")

extensions = ["myst_parser", "sphinx.ext.autodoc"]  # no intersphinx: the build needs no network
exclude_patterns = ["_build", "autobahn", "benchmarks"]  # included in conformance.md and performance.md
# A public name stands in the reference twice, at the top of the package and in its own module; either is a fine target.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"{project} {release}"
