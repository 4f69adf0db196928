"""The corpus on disk: its splits share nothing, and options decide it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora.concierge import builder
from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.skills import SKILLS
from dlm.corpora.registry import Prepared, prepare
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import message_text

SMALL = {"dialogues": 300, "held_out": 60, "cities": 8, "unseen_cities": 3}
DIGEST = """
from dlm.core.files import digest
from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.skills import SKILLS
from dlm.dialogue.schema import to_json
drawn = draw(Options(skills=tuple(SKILLS), dialogues=60, held_out=12))
print(digest({split: [to_json(d) for d in dialogues] for split, dialogues in drawn.items()}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare("concierge", SMALL, tmp_path_factory.mktemp("builds"))


def text(dialogue: Dialogue) -> str:
    return "\n".join(message_text(message) for message in dialogue.messages)


def test_splits_have_the_sizes_asked_for(built: Prepared):
    assert {name: len(split) for name, split in built.splits.items()} == {
        "train": 300,
        "validation": 60,
        "test": 60,
        "test_unseen": 60,
    }
    assert built.counts["train"]["dialogues"] == 300
    assert built.card.licence == "Apache-2.0"
    assert "tensorflow" not in sys.modules


def test_no_two_dialogues_say_the_same(built: Prepared):
    """Train and test share no dialogue: also where few cities make repetition likely."""
    texts = [text(dialogue) for split in built.splits.values() for dialogue in split]
    assert len(set(texts)) == len(texts)
    crowded = draw(Options(skills=("question",), dialogues=900, cities=1, held_out=20))
    texts = [text(dialogue) for split in crowded.values() for dialogue in split]
    assert len(set(texts)) == len(texts)


def test_test_unseen_shares_no_name_with_training(built: Prepared):
    def names(split: str) -> set[str]:
        said = {n for d in built.splits[split] for n in d.meta["entities"]}
        return {name for name in said if not name.isupper()}

    assert not names("test_unseen") & (names("train") | names("test") | names("validation"))
    assert all(d.meta["city"].startswith("unseen-") for d in built.splits["test_unseen"])
    assert all(d.meta["city"].startswith("train-") for d in built.splits["test"])


def test_skills_take_turns(built: Prepared):
    tasks = [dialogue.task for dialogue in built.splits["test"]]
    assert tasks == ["booking", "question", "out_of_scope"] * 20
    everything = draw(Options(**SMALL, skills=tuple(SKILLS)))
    for dialogues in everything.values():
        assert [dialogue.task for dialogue in dialogues[:12]] == list(SKILLS) * 2


def test_dialogues_of_all_skills_say_20000_names_in_training():
    options = Options(skills=tuple(SKILLS), dialogues=18_000, held_out=1)
    said = {name for d in draw(options)["train"] for name in d.meta["entities"]}
    assert sum(not name.isupper() for name in said) >= 20_000


def test_every_process_draws_the_same():
    """No order comes from hashing, which differs from process to process."""

    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", DIGEST]
        folder = Path(builder.__file__).parents[3]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout

    first, second = digest("1"), digest("2")
    assert first == second
    assert len(first.strip()) == 64


def test_the_build_is_what_was_drawn_and_is_found_again(built: Prepared, tmp_path: Path):
    drawn = draw(Options(**SMALL))
    assert list(built.splits["train"]) == drawn["train"]
    again = prepare("concierge", {**SMALL, "seed": 0}, tmp_path)
    assert again.digest == built.digest
    (folder,) = (tmp_path / "concierge").iterdir()
    stamp = folder.stat().st_mtime_ns
    prepare("concierge", SMALL, tmp_path)
    assert [f.stat().st_mtime_ns for f in (tmp_path / "concierge").iterdir()] == [stamp]


def test_the_seed_decides_the_dialogues_and_no_other_split_changes_with_the_size():
    one, two = draw(Options(**SMALL)), draw(Options(**SMALL, seed=1))
    assert not {text(d) for d in one["test"]} & {text(d) for d in two["test"]}
    larger = draw(Options(**{**SMALL, "dialogues": 400}))
    assert larger["train"][:300] == one["train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skills": ("bookings",)}, "no skill 'bookings'; known: booking, question"),
        ({"skills": ()}, "data.options.skills: empty; known: booking"),
        ({"held_out": 0}, "data.options.held_out=0 must be at least 1"),
        ({"dialoges": 5}, "did you mean"),
    ],
)
def test_bad_options_are_told(options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        prepare("concierge", options, tmp_path)


def test_running_out_of_new_dialogues_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(builder, "_ATTEMPTS", 1)
    with pytest.raises(
        UserError, match=r"hardly any new dialogue of skill 'question' after \d+; ask"
    ):
        draw(Options(skills=("question",), dialogues=2000, cities=1))
