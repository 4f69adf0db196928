"""What is said while a run is measured."""

from __future__ import annotations

from dlm.commands.measure import Told
from dlm.core.progress import Progress
from dlm.generation.engine import GREEDY, Completion, Request, Written


class Twice:
    """Writes two tokens in answer to each request."""

    def stream(self, requests, config):
        for token in (7, 8):
            for place in range(len(requests)):
                yield Written(place, token, -0.5, "stop" if token == 8 else None)


def test_responses_are_counted_from_call_to_call(capsys):
    request = Request([1], None, 8)
    with Progress(None, "answering test", "response") as progress:
        engine = Told(Twice(), progress)
        for asked in (2, 3):
            written = engine.generate([request] * asked, GREEDY)
            assert written == [Completion((7, 8), "stop", -1.0)] * asked
    assert capsys.readouterr().out.splitlines() == [
        "answering test: response 0",
        "answering test: response 5",
    ]
