"""A table as a LaTeX document of its own, with booktabs."""

from __future__ import annotations

from dlm.tables.layout import Entry, Grid, Row, Sheet

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#{}"},
    "_": r"\_\allowbreak{}",
    "=": r"=\allowbreak{}",
    "/": r"/\allowbreak{}",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": "'",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # two of them are no dash
    ",": ",{}",  # nor two commas a quote
    "[": "{[}",  # after \\ it would begin an argument
    "]": "{]}",
    "*": "{*}",
    "!": "!{}",
    "?": "?{}",
    "±": r"\ensuremath{\pm}",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "†": r"\textdagger{}",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
    "→": r"\ensuremath{\rightarrow}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "γ": r"\ensuremath{\gamma}",
    "ε": r"\ensuremath{\varepsilon}",
    "λ": r"\ensuremath{\lambda}",
    "τ": r"\ensuremath{\tau}",
}

# Wide tables shrink to the line, others stay as they are.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
HEAD = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[margin=2cm]{geometry}
\usepackage{array,booktabs,graphicx,longtable}
\setlength{\LTleft}{0pt}
\begin{document}"""


def latex(sheet: Sheet) -> str:
    """The sheet as a document that pdflatex compiles."""
    parts = [HEAD, _main(sheet), r"\begin{itemize}\footnotesize\setlength{\itemsep}{0pt}"]
    parts += [rf"\item {escape(note)}" for note in sheet.notes]
    parts += [r"\end{itemize}", *map(_grid, sheet.grids), r"\end{document}"]
    return "\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is, on one line.

    ASCII and the letters of western Europe are printed; `SPECIAL` spells what has a command;
    another character, which the fonts may lack, is printed as its number: `[U+4E2D]`.
    """
    return "".join(map(_spelled, " ".join(text.split())))


def _spelled(sign: str) -> str:
    if sign in SPECIAL:
        return SPECIAL[sign]
    if " " <= sign <= "~" or ("À" <= sign <= "ÿ" and sign.isalpha()):
        return sign
    return f"{{[}}U+{ord(sign):04X}{{]}}"


def _main(sheet: Sheet) -> str:
    columns = "l" + "r" * len(sheet.header)
    rows = [line for row in sheet.published for line in _lines(row)]
    rows += [r"\midrule"] if sheet.published else []
    rows += [line for row in sheet.ours for line in _lines(row)]
    header = " & ".join(["", *map(escape, sheet.header)])
    return "\n".join(
        [
            r"\begin{table}[ht]",
            r"\centering",
            rf"\caption{{{escape(sheet.title)}. {escape(sheet.caption)}}}",
            FIT,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{header} \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def _lines(row: Row) -> list[str]:
    """A row, and what stands under its cells as a second, smaller one."""
    entries = (row.name, *row.entries)
    lines = [" & ".join(map(_figure, entries)) + r" \\"]
    if any(entry.under for entry in entries):
        small = [rf"{{\footnotesize {escape(e.under)}}}" if e.under else "" for e in entries]
        lines.append(" & ".join(small) + r" \\")
    return lines


def _figure(entry: Entry) -> str:
    text = escape(entry.text)
    return rf"\textbf{{{text}}}" if entry.bold else text


def _grid(grid: Grid) -> str:
    names, rest = 3, len(grid.header) - 3
    columns = _wrapped(0.16) * names + _wrapped((1 - 0.16 * names) / rest) * rest
    rows = [" & ".join(map(escape, row)) + r" \\" for row in grid.rows]
    return "\n".join(
        [
            rf"\section*{{{escape(grid.title)}}}",
            r"{\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\begin{{longtable}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(escape, grid.header)) + r" \\",
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}}",
        ]
    )


def _wrapped(share: float) -> str:
    """A column of wrapped text that takes this share of the line."""
    width = rf"\dimexpr{share:.3f}\linewidth-2\tabcolsep\relax"
    return rf">{{\raggedright\arraybackslash}}p{{{width}}}"
