"""Write one document in several formats: sections of paragraphs, tables and pictures."""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

BEST, TIED = "★", "≈"  # HTML colours the table cells that hold one

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "≈": r"$\approx$", "★": r"$\star$",
    "∞": r"$\infty$", "–": "--", "−": "$-$", "×": r"$\times$", "<": "$<$", ">": "$>$",
}  # fmt: skip


class Linked(str):
    """Text of one part or more, given as (text, address): each leads to its address, if it has one.

    An address that begins with # is in the same page, and there in HTML only.
    """

    parts: Sequence[tuple[str, str]]

    def __new__(cls, *parts: tuple[str, str]) -> "Linked":
        self = super().__new__(cls, ", ".join(text for text, _ in parts))
        self.parts = parts
        return self


@dataclass
class Table:
    """Rows of text under headings; the first `text_columns` are words, the others numbers.

    `anchors` name the rows, for links to them.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    text_columns: int = 1
    is_folded: bool = False  # collapsed in HTML, left out of Markdown
    is_matrix: bool = False  # each row reads by itself, so that on a phone its entries stand below each other
    anchors: Sequence[str] = ()
    is_sortable: bool = False  # by its headings, in HTML where scripts run

    def compact(self) -> "Table":
        """Return the table without the columns that say nothing in any row."""
        said = [bool({row[index] for row in self.rows} - {"–", ""}) for index in range(len(self.headings))]
        rows = [[text for text, has in zip(row, said, strict=True) if has] for row in self.rows]
        headings = [text for text, has in zip(self.headings, said, strict=True) if has]
        return replace(self, headings=headings, rows=rows, text_columns=sum(said[: self.text_columns]))


@dataclass
class Picture:
    """A figure as the bytes of a file, with a text alternative."""

    file: str
    content: bytes
    alt: str
    is_repeat: bool = False  # shows again what a table says, so a phone leaves it out

    @property
    def uri(self) -> str:
        kind = "svg+xml" if self.file.endswith(".svg") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode()}"


def picture(file: str, figure: Any, alt: str, is_repeat: bool = False) -> Picture:
    content = io.BytesIO()
    metadata = {"Date": None} if file.endswith(".svg") else None  # so that the same runs give the same bytes
    figure.savefig(content, format=file.rpartition(".")[2], metadata=metadata)
    return Picture(file, content.getvalue(), alt, is_repeat)


Block = str | list[str] | Table | Picture  # a paragraph, a list of lines, ...


@dataclass
class Section:
    """A heading and the blocks under it, in order."""

    title: str
    blocks: Sequence[Block] = ()
    is_folded: bool = False  # collapsed in HTML

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass
class Document:
    """A document in every part that some format needs; `lead` is its conclusion in a sentence."""

    title: str
    lead: str
    sections: Sequence[Section]
    tables: Sequence[Table]  # for a terminal and for LaTeX
    numbers: Mapping[str, tuple[Sequence[str], Sequence[Sequence[object]]]]  # headings and rows of each CSV file


def to_html(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return a self-contained HTML page."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    kinds = {"table": Table, "picture": Picture, "list": list, "linked": Linked}
    environment.tests |= {name: lambda block, kind=kind: isinstance(block, kind) for name, kind in kinds.items()}
    template = environment.from_string(Path(__file__).with_name("document.html").read_text(encoding="utf-8"))
    blocks = (block for section in sections for block in section.blocks)
    is_sortable = any(isinstance(block, Table) and block.is_sortable for block in blocks)
    script = Path(__file__).with_name("sort.js").read_text(encoding="utf-8") if is_sortable else ""
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # of all that the page may run
    shown = {"title": title, "lead": lead, "sections": sections, "best": BEST, "tied": TIED}
    return template.render(**shown, script=script, script_hash=script_hash)


def to_markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the text of a Markdown file whose pictures are in figures/ beside it."""
    parts = [f"# {_as_one_line(title)}", f"**{_as_one_line(lead)}**"]
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, Picture):
                parts.append(f"![{block.alt}](figures/{block.file})")
            elif isinstance(block, list):
                parts.append("\n".join(f"- {_as_one_line(line)}" for line in block))
            elif isinstance(block, str):
                parts.append(_as_one_line(block))
            elif not block.is_folded:
                parts.append(markdown_table(block))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table in Markdown, without its title."""
    rule = ["---" if index < table.text_columns else "---:" for index in range(len(table.headings))]
    rows = [[_markdown_text(text) for text in row] for row in (table.headings, rule, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_text(text: str) -> str:
    parts = text.parts if isinstance(text, Linked) else [(text, "")]
    return ", ".join(
        f"[{_escape_markdown(part)}]({address})" if address and address[0] != "#" else _escape_markdown(part)
        for part, address in parts
    )


def _escape_markdown(text: str) -> str:
    return _as_one_line(text).replace("|", r"\|")


def _as_one_line(text: str) -> str:
    """Return text that ends no row, and whose tags are read, not obeyed."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split()))


def to_latex(table: Table) -> str:
    """Return a LaTeX table for \\input; it needs the package booktabs."""
    columns = "l" * table.text_columns + "r" * (len(table.headings) - table.text_columns)
    lines = [" & ".join(map(_escape_tex, row)) + r" \\" for row in (table.headings, *table.rows)]
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"% {table.title}", *body, r"\end{tabular}"]) + "\n"


def _escape_tex(text: str) -> str:
    return re.sub("|".join(map(re.escape, TEX)), lambda match: TEX[match[0]], text)


def to_csv(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return comma-separated values; None and nan are empty fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    # only nan differs from itself
    writer.writerows([None if value != value else value for value in row] for row in rows)
    return text.getvalue()
