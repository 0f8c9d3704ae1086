"""Configuration of the documentation site; ``make docs`` builds it."""

import pydantic
from sphinx.application import Sphinx

import pytest_otel_diag

project = "pytest-otel-diag"
author = "the pytest-otel-diag authors"
version = release = pytest_otel_diag.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"pytest-otel-diag {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config, model_post_init",
}
python_use_unqualified_type_names = True


# Pages link to these files of the repository, which is right on a forge; the site includes them as pages.
_OUTSIDE = {"../ARCHITECTURE.md": "architecture.md", "../docker/README.md": "containers.md"}


def _link_to_pages(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Point links that leave ``docs/`` to the page that includes their file."""
    for outside, page in _OUTSIDE.items():
        source[0] = source[0].replace(f"]({outside}", f"]({page}")


def _without_constructor(
    _app: Sphinx, what: str, _name: str, documented: object, *_rest: object
) -> tuple[str, str] | None:
    """Hide the constructor of pydantic models: it repeats the fields that are listed below it."""
    if what == "class" and isinstance(documented, type) and issubclass(documented, pydantic.BaseModel):
        return "", ""
    return None


def setup(app: Sphinx) -> None:
    """Register the hooks above."""
    app.connect("source-read", _link_to_pages)
    app.connect("autodoc-process-signature", _without_constructor)
