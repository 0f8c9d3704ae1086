"""The functions that an agent may call during an investigation, over whatever door it uses."""

from pytest_otel_diag.tools.contract import Caps, Tool, ToolContext, ToolError
from pytest_otel_diag.tools.listed import ALIASES, TOOLS, TOOLS_VERSION, version_of
from pytest_otel_diag.tools.toolbox import Toolbox

__all__ = [
    "ALIASES",
    "TOOLS",
    "TOOLS_VERSION",
    "Caps",
    "Tool",
    "ToolContext",
    "ToolError",
    "Toolbox",
    "version_of",
]
