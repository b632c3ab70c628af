"""Many runs: what is done, what remains, how each came out."""
