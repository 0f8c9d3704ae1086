"""The workflow of one session, in virtual and in wall time."""
