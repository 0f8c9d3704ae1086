"""The services of the Astronomy Shop, one module per service.

Each module has a function ``specs(blueprint)`` or ``spec(blueprint)`` that returns what the kernel runs.
"""
