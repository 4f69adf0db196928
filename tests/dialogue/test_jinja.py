"""The one place where another's template runs: what it may do, and what becomes of the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dlm
from dlm.core.errors import UserError
from dlm.dialogue.jinja import Refused, Renderer

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}SAID{% endfor %}{% endfor %}"
DOUBLED = (
    "{% set n = namespace(x='abcd') %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
)
ENDLESS = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}"
UNINTERRUPTED = (  # one comparison of lists, in which Python sees no signal
    "{% set x = range(99999) | list %}{% set y = range(99999) | list %}"
    "{{ [x] * 9999 == [y] * 9999 }}"
)
ESCAPES = (
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch HERE') }}",
    "{{ raise_exception.__globals__['sys'] }}",
    "{{ messages.append(1) }}",
    "{{ (messages|attr('__class__')).__base__.__subclasses__() }}",
)
USER = [{"role": "user", "content": "hé 東"}]


def rendered(source, messages=USER, prompted=False, **given):
    return Renderer(source, {}).render(messages, [(len(messages), prompted)], **given)[0]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (LOOP.replace("SAID", ""), "it takes longer than 2 seconds"),
        (LOOP.replace("SAID", "a" * 99), "it writes more than 16777216 characters"),
        (DOUBLED, "it needs more than 1024 MiB of memory"),
        ("{{ 'x' * 10 ** 10 }}", "it needs more than 1024 MiB of memory"),
        (ENDLESS, "it calls itself without end"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ nobody.name }}", "'nobody' is undefined"),
    ],
)
def test_a_template_without_bounds_ends_in_one_line(source, reason):
    """Nothing loaded can run: endless loops, gigabytes and broken text end in one clear line."""
    with pytest.raises(UserError, match="chat template") as caught:
        rendered(source)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(source, tmp_path):
    """Nothing loaded can run: no attribute leads from a template's values to Python."""
    mark = tmp_path / "mark"
    with pytest.raises(UserError, match=r"unsafe|undefined|immutable"):
        rendered(source.replace("HERE", str(mark)))
    assert not mark.exists()


def test_after_a_failure_the_next_rendering_is_whole():
    renderer = Renderer("{% if not messages %}" + ENDLESS + "{% endif %}a{{ tools }}", {})
    with pytest.raises(UserError, match="without end"):
        renderer.render([], [(0, False)])
    assert renderer.render(USER, [(1, False)]) == ["aNone"]
    killed = Renderer("{% if not messages %}" + UNINTERRUPTED + "{% endif %}a", {})
    with pytest.raises(UserError, match="takes too long"):
        killed.render([], [(0, False)])
    assert killed.render(USER, [(1, False)]) == ["a"]


def test_what_templates_are_offered():
    """What the transformers library offers: JSON, a date (fixed here), refusal, its own tag."""
    assert rendered("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert rendered("{{ {'a': 1} | tojson(indent=1) }}") == '{\n "a": 1\n}'
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "01 Jan 2025"
    assert rendered("{% generation %}a{% endgeneration %}b") == "ab"
    assert rendered("{% for m in messages %}{% break %}{% endfor %}") == ""
    assert rendered("  {% if 1 %}\na\n  {% endif %}\nb") == "a\nb"
    with pytest.raises(Refused, match=r"^no such role$"):
        rendered("{{ raise_exception('no such role') }}")


def test_prefixes_and_variables():
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}.{% endfor %}"
    source += "{% if add_generation_prompt %}>{% endif %}{{ (tools or []) | length }}"
    renderer = Renderer(source, {"bos_token": "<s>"})
    prefixes = [(0, False), (1, True), (2, False)]
    texts = renderer.render([*USER, {"content": "b"}], prefixes, [{"name": "find"}])
    assert texts == ["<s>1", "<s>hé 東.>1", "<s>hé 東.b.1"]


def test_there_is_no_second_renderer():
    """Nothing loaded can run: what comes with a checkpoint is the sandbox's; a page is our file."""
    importing = []
    for path in Path(dlm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            importing += [path.name for name in names if name.split(".")[0] == "jinja2"]
    assert set(importing) == {"jinja_worker.py", "audit_page.py"}
