"""A server of models over HTTP, with a page to draw on."""
