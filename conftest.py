"""Nothing to configure: the plugin is found through its entry point.

Naming it in ``pytest_plugins`` here as well would register it twice and stop pytest from starting.
"""
