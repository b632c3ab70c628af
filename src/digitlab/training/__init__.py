"""Training one run, from the configuration to the tracked result."""
