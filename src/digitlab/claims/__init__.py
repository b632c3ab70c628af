"""Published numbers: what was claimed, what our runs say of it."""
