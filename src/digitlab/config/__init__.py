"""What a configuration may say, what it builds, what identifies it."""
