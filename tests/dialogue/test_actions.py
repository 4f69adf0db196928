from __future__ import annotations

from dlm.dialogue.actions import Tool
from dlm.dialogue.schema import Dialogue, Message, validate


def test_a_tool_declares_itself_as_a_dialogue_shows_it():
    schema = {"type": "object", "properties": {"price": {"type": "string"}}}
    tool = Tool("find", "finds a place", schema, lambda price: f"{price} place")
    assert tool.declaration == {
        "name": "find",
        "description": "finds a place",
        "parameters": schema,
    }
    assert tool.function(price="cheap") == "cheap place"
    validate(Dialogue("d", (Message("user"),), tools=(tool.declaration,)), "made")
