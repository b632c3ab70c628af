"""Runs in MLflow: the store, queries, locks, and writing a run."""
