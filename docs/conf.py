"""Configuration of the documentation site; ``make docs`` builds it."""

from sphinx.application import Sphinx

import pytest_otel_diag

project = "pytest-otel-diag"
version = release = pytest_otel_diag.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
highlight_language = "text"

html_theme = "furo"
html_title = f"pytest-otel-diag {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
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
    _app: Sphinx, _what: str, _name: str, documented: object, *_rest: object
) -> tuple[str, str] | None:
    """Hide constructors: those of models, dataclasses, enums and Protocols repeat the fields below them."""
    is_class = isinstance(documented, type) and not issubclass(documented, Exception)
    return ("", "") if is_class else None


def setup(app: Sphinx) -> None:
    """Register the hooks above."""
    app.connect("source-read", _link_to_pages)
    app.connect("autodoc-process-signature", _without_constructor)
