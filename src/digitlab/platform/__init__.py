"""The process and its machine: console, signals, start-up, hardware, git."""
