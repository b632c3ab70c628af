"""One run, from the configuration to the tracked result."""
