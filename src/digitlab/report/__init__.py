"""The report of a sweep: a comparison of its runs, as tables and as a page."""
