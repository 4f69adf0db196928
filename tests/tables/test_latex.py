"""LaTeX: what is escaped is printed as it was, and the document compiles."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_table import sample

from dlm.tables.latex import SPECIAL, escape, latex
from dlm.tables.layout import lay_out

TRICKY = r"100 % of $x$ & y_1^2 #3 {a} ~ \cmd <b> |a| 'q' `r` \"s\" -- [1] * ,, ?` ÄéøÿßŁ中 ± → ε"
# One piece of escaped text; anything else would be a command or a bare special character.
PIECE = re.compile(
    r"\\ensuremath\{(?:-|\\[a-z]+)\}|\\[a-z]+\{\}|\\_\\allowbreak\{\}|[=/]\\allowbreak\{\}"
    r"|\\[&%$#{}]|\{[][*]\}|[-,!?]\{\}|-{2,3}|[^\\{}&%$#~^_<>|\"`\[\]*,!?=/-]"
)


def read(text: str) -> str:
    """Escaped text back as what it prints."""
    spelled = {value: key for key, value in SPECIAL.items()}
    shown, place = "", 0
    while place < len(text):
        piece = PIECE.match(text, place)
        assert piece, text[place:]
        shown += spelled.get(piece[0], piece[0])
        place = piece.end()
    return re.sub(r"\[U\+([0-9A-F]{4,6})\]", lambda found: chr(int(found[1], 16)), shown)


@given(st.text(st.characters(codec="utf-8", exclude_characters="[]"), max_size=40))
def test_escaped_text_is_read_back_as_it_was(text):
    assert read(escape(text)) == " ".join(text.split())


def test_special_characters_are_spelled():
    assert escape("a_b & 50 %") == r"a\_\allowbreak{}b \& 50 \%"
    assert escape("70.0 ± 1.0") == r"70.0 \ensuremath{\pm} 1.0"
    assert escape("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape("中") == "{[}U+4E2D{]}"
    assert escape("a\nb\t c") == "a b c"


def test_rows_bold_and_what_stands_under():
    lines = latex(lay_out(sample())).splitlines()
    bold = r"better & \textbf{72.0 \ensuremath{\pm} 2.0 (3)} & 10 \ensuremath{\pm} 1 (3) \\"
    assert bold in lines
    under = lines[lines.index(bold) + 1]
    assert under.startswith(r" & {\footnotesize 70.0,{} 72.0,{} 74.0} & ")
    assert r"\midrule" in lines
    assert sum(line.startswith(r"\begin{") for line in lines) == 6


def test_environments_and_braces_close():
    text = latex(lay_out(sample(name=TRICKY, note=TRICKY)))
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_document_compiles(tmp_path):
    everything = (
        "".join(SPECIAL) + "".join(map(chr, range(0xC0, 0x100))) + "".join(map(chr, range(32, 127)))
    )
    sheet = lay_out(sample(name=f"{TRICKY} {everything}", note=everything))
    (tmp_path / "table.tex").write_text(latex(sheet), encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
