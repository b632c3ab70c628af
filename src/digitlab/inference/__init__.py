"""Use what was trained: predict, evaluate, export."""
