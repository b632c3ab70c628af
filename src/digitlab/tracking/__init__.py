"""Runs in MLflow: the store, the locks, one run under way."""
