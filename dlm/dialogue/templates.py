"""Which template a run takes."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.checks import check_choice
from dlm.dialogue.policy import PolicyConfig
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


def bind(config: TemplateConfig, tokenizer: Tokenizer, policy: PolicyConfig) -> Template:
    """Returns the template that a config asks for, bound to a tokenizer.

    Its prompts hold what the policy lets see of earlier turns.
    """
    kind = ChatTemplate if config.name == "checkpoint" else BuiltinTemplate
    return kind(tokenizer, policy.prompted)
