"""The tools, each with its arguments, its result and its statements."""
