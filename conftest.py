"""Our own plugin is found through its entry point.

Naming it here as well would register it twice and stop pytest from starting.
"""

pytest_plugins = ("pytester",)
