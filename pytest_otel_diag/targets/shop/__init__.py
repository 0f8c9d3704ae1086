"""The target ``shop``: the simulated demo in virtual time."""
