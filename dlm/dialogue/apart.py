"""How often ids differ because text is encoded apart from what a chat template writes around it.

Encoded as one text, a word may be merged with a literal beside it, and the name of a control token
in a text becomes that token. Here neither happens, so in places the ids are not those of the
transformers library's `apply_chat_template(tokenize=True)`; this counts where.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import tokenizers

from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Rejected
from dlm.dialogue.tokenizer import Tokenizer


class Apart(NamedTuple):
    """What was compared, and what of it differs.

    Attributes:
      messages, tokens: as we encode them; those before the first message are of it.
      other_tokens: of `tokens`, those that the one text does not have at their place.
      other_messages: of `messages`, those with such a token.
    """

    messages: int
    tokens: int
    other_messages: int
    other_tokens: int


def count_apart(template: ChatTemplate, dialogues: Sequence[Dialogue]) -> Apart:
    """Compares our ids of dialogues with those of each as one text; refused ones are left out."""
    said = template.tokenizer.pretrained
    assert said is not None  # or there would be no template
    whole = tokenizers.Tokenizer.from_str(json.dumps(said.file))
    counts = [0, 0, 0, 0]
    for dialogue, rendered in zip(dialogues, template.render_many(dialogues), strict=True):
        if isinstance(rendered, Rejected):
            continue
        ids = whole.encode(template.text(dialogue), add_special_tokens=False).ids
        known, place = set(_placed(template.tokenizer, ids, 0)), 0
        for message in rendered:
            ours = _placed(template.tokenizer, message.ids, place)
            place = ours[-1][1] if ours else place
            other = sum(token not in known for token in ours)
            found = (1, len(ours), other > 0, other)
            counts = [count + more for count, more in zip(counts, found, strict=True)]
    return Apart(*counts)


def _placed(tokenizer: Tokenizer, ids: Sequence[int], start: int) -> list[tuple[int, int, int]]:
    """Returns each token with the bytes of the text where it begins and ends."""
    names = (tokenizer.token_bytes(i) or (tokenizer.control_name(i) or "").encode() for i in ids)
    places = accumulate(map(len, names), initial=start)
    return [(*place, i) for place, i in zip(pairwise(places), ids, strict=True)]
