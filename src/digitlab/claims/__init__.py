"""Published claims, and whether our runs reproduce them."""
