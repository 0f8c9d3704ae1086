"""The loop in which a model calls tools until it submits a diagnosis, within budgets."""
