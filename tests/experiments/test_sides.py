"""Sides of a benchmark take turns."""

from __future__ import annotations

from experiments.sides import serve


def test_a_side_works_only_when_asked():
    """While one side works the other waits: nothing is computed before it is asked for."""
    events = []

    def session(*args):
        for _ in range(3):
            events.append("works")
            yield args

    class Pipe:
        asked = iter([True, True, False])

        def recv(self) -> bool:
            events.append("asked")
            return next(self.asked)

        def send(self, result) -> None:
            assert result == ("dlm", 7)

    serve(Pipe(), session, "dlm", 7)
    assert events == ["asked", "works", "asked", "works", "asked"]
