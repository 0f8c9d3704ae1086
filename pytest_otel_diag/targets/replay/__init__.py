"""The target ``replay``: recorded incidents in virtual time."""
