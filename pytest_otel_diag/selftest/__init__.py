"""Proof that each scenario's oracle is right, before it is used to judge anybody."""
