"""Chat templates in the form of well-known checkpoints, written for these tests, and a tokenizer.

Each has the same turns, markers, refusals and tool syntax as its model; none is its file.
"""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer as Pieces
from tokenizers import models, pre_tokenizers, trainers

from dlm.dialogue import pretrained
from dlm.dialogue.tokenizer import Pretrained, Tokenizer, added_token

CHATML = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

SMOLLM2 = """
{%- if messages[0].role != 'system' -%}
<|im_start|>system
You are SmallModel, an assistant for tests<|im_end|>
{% endif -%}
""" + CHATML.lstrip("\n")

LLAMA3 = """
{{- bos_token }}
{%- macro turn(role) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro -%}
{%- set said = messages -%}
{%- set system = '' -%}
{%- if messages and messages[0].role == 'system' -%}
  {%- set system = messages[0].content | trim -%}
  {%- set said = messages[1:] -%}
{%- endif -%}
{%- if system or tools -%}
{{ turn('system') }}
{%- if tools -%}
You can call functions; answer with a JSON object of name and parameters.

{% for tool in tools %}{{ tool | tojson(indent=4) }}

{% endfor -%}
{%- endif -%}
{{ system }}<|eot_id|>
{%- endif -%}
{%- for m in said -%}
  {%- if m.tool_calls -%}
    {%- if m.tool_calls | length > 1 -%}
      {{ raise_exception('one call at a time, please') }}
    {%- endif -%}
    {%- set call = m.tool_calls[0].function -%}
{{ turn('assistant') }}{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
    {{- '<|eot_id|>' -}}
  {%- elif m.role == 'tool' -%}
{{ turn('ipython') }}{{ m.content | tojson if m.content is mapping else m.content }}<|eot_id|>
  {%- else -%}
{{ turn(m.role) }}{{ m.content | trim }}<|eot_id|>
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ turn('assistant') }}{%- endif -%}
"""

QWEN = """
{%- set said = messages -%}
{%- if messages[0].role == 'system' -%}
  {%- set system, said = messages[0].content, messages[1:] -%}
{%- else -%}
  {%- set system = 'You help.' -%}
{%- endif -%}
<|im_start|>system
{{ system }}
{%- if tools %}


# Tools

Functions are listed within <tools></tools>:
<tools>
{%- for tool in tools %}

{{ tool | tojson }}
{%- endfor %}

</tools>
Answer with <tool_call></tool_call> around name and arguments.
{%- endif -%}
<|im_end|>
{% for m in said -%}
  {%- if m.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}<|im_start|>user{%- endif %}

<tool_response>
{{ m.content }}
</tool_response>
    {%- if loop.last or loop.nextitem.role != 'tool' -%}<|im_end|>
{% endif -%}
  {%- elif m.tool_calls -%}
<|im_start|>assistant
    {%- if m.content %}

{{ m.content }}
    {%- endif -%}
    {%- for call in m.tool_calls %}

<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
    {%- endfor -%}
<|im_end|>
{% else -%}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

MISTRAL = """
{{- bos_token }}
{%- if messages and messages[0].role == 'system' -%}
  {%- set system, said = messages[0].content + '\\n\\n', messages[1:] -%}
{%- else -%}
  {%- set system, said = '', messages -%}
{%- endif -%}
{%- set ns = namespace(turn='user') -%}
{%- for m in said if m.role in ('user', 'assistant') and not m.tool_calls -%}
  {%- if m.role != ns.turn -%}
    {{ raise_exception('after the system, user and assistant take turns') }}
  {%- endif -%}
  {%- set ns.turn = 'user' if m.role == 'assistant' else 'assistant' -%}
{%- endfor -%}
{%- for m in said -%}
  {%- if m.role == 'user' -%}
[INST] {{ system if loop.first else '' }}{{ m.content }} [/INST]
  {%- elif m.tool_calls -%}
[TOOL_CALLS] [
    {%- for call in m.tool_calls -%}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}
      {{- ', "id": "' + call.id + '"}' -}}
    {%- if not loop.last %}, {% endif -%}
    {%- endfor -%}
]{{ eos_token }}
  {%- elif m.role == 'assistant' -%}
{{ ' ' + m.content + eos_token }}
  {%- elif m.role == 'tool' -%}
[TOOL_RESULTS] {"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]
  {%- else -%}
    {{ raise_exception('only the roles system, user, assistant and tool are known') }}
  {%- endif -%}
{%- endfor -%}
"""

GEMMA = """
{{- bos_token }}
{%- if messages and messages[0].role == 'system' -%}
  {{ raise_exception('a system message is not taken') }}
{%- endif -%}
{%- for m in messages -%}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('user and assistant take turns, the user first') }}
  {%- endif -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}
<start_of_turn>model
{% endif -%}
"""

ZEPHYR = """
{%- for m in messages -%}
  {%- if m.role in ('system', 'user', 'assistant') -%}
<|{{ m.role }}|>
{{ m.content + eos_token }}
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{% endif -%}
"""

# What a checkpoint of the form has besides: control tokens, special roles, whether BOS is added.
FORMS = {
    "chatml": (CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), "", "<|im_end|>", False),
    "smollm2": (SMOLLM2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>", False),
    "llama3": (
        LLAMA3,
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eot_id|>"),
        ),
        "<|begin_of_text|>",
        "<|eot_id|>",
        True,
    ),
    "qwen": (
        QWEN,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"),
        "",
        "<|im_end|>",
        False,
    ),
    "mistral": (
        MISTRAL,
        ("<s>", "</s>", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        "<s>",
        "</s>",
        True,
    ),
    "gemma": (
        GEMMA,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        "<eos>",
        True,
    ),
    "zephyr": (ZEPHYR, ("<s>", "</s>"), "<s>", "</s>", True),
}

_TEXTS = (
    "system user assistant tool context intent state reason call act reply tools model result",
    "a cheap table for four tonight, please; here is one near the hotel: it is booked.",
    '{"name": "find", "arguments": {"price": "cheap", "people": 4}} parameters',
    "INST TOOL_CALLS TOOL_RESULTS You are an assistant for tests. role name",
)


@cache
def checkpoint(form: str) -> Tokenizer:
    """A small byte-level tokenizer with a chat template and control tokens of this form."""
    source, control, bos, eos, adds_bos = FORMS[form]
    pieces = Pieces(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=520, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator([*_TEXTS] * 4, trainer)
    file = json.loads(pieces.to_str())
    first = len(file["model"]["vocab"])
    file["added_tokens"] = [
        added_token(first + i, name, special=not name.endswith("tool_call>"))
        for i, name in enumerate(control)
    ]
    special = {"eos_token": eos, "pad_token": eos, **({"bos_token": bos} if bos else {})}
    said = Pretrained(file, special, source.strip("\n"), adds_bos)
    return pretrained.build(said, form)
