"""What a sweep's runs say together, as tables and as a page."""
