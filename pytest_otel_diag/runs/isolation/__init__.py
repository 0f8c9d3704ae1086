"""``--otel-diag-isolate``: runs an analyzer written in Python in a process of its own."""

RESULT = "otel-diag-result.json"
"""Name of the file in the working directory in which the parent finds the result."""

START = (
    "import sys, json; job = json.loads(sys.stdin.buffer.read()); sys.path[:] = job['path']; "
    "from pytest_otel_diag.runs.isolation.child import main; main(job)"
)
"""What the interpreter runs: the path has to be set before anything of this package can be imported."""
