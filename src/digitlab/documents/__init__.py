"""One document in several formats: HTML, Markdown, LaTeX, CSV."""
