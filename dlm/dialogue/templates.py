"""Which template a run takes."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.checks import check_choice
from dlm.dialogue.template import Template
from dlm.dialogue.tokenizer import Tokenizer


@dataclass(frozen=True)
class TemplateConfig:
    """Which template renders dialogues.

    Attributes:
      name: "builtin", with a token for each role and channel, or "checkpoint", the chat template
        that came with the tokenizer.
    """

    name: str = "builtin"

    def __post_init__(self) -> None:
        check_choice(self.name, ("builtin", "checkpoint"), "", "template.name")


def bind(config: TemplateConfig, tokenizer: Tokenizer) -> Template:
    """Returns the template that a config asks for, bound to a tokenizer."""
    return ChatTemplate(tokenizer) if config.name == "checkpoint" else BuiltinTemplate(tokenizer)
