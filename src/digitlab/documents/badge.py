"""A badge: a small picture of two words or more, for a README."""

from jinja2 import Environment

HEIGHT, LETTER, MARGIN = 20, 6.7, 8  # in pixels, a letter on average
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{{ left + right }}" height="{{ height }}" role="img" \
aria-label="{{ label }}: {{ text }}">
<title>{{ label }}: {{ text }}</title>
<rect width="{{ left }}" height="{{ height }}" fill="#3c4043"/>
<rect x="{{ left }}" width="{{ right }}" height="{{ height }}" fill="{{ colour }}"/>
<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">
<text x="{{ left / 2 }}" y="14" textLength="{{ left - 2 * margin }}">{{ label }}</text>
<text x="{{ left + right / 2 }}" y="14" textLength="{{ right - 2 * margin }}">{{ text }}</text>
</g>
</svg>
"""


def badge(label: str, text: str, colour: str) -> str:
    """Return an SVG of `label` beside `text` on a `colour`."""
    left, right = (round(LETTER * len(each)) + 2 * MARGIN for each in (label, text))
    template = Environment(autoescape=True, keep_trailing_newline=True).from_string(TEMPLATE)
    sizes = {"left": left, "right": right, "height": HEIGHT, "margin": MARGIN}
    return template.render(label=label, text=text, colour=colour, **sizes)
