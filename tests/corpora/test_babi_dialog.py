"""bAbI dialog: a small file in the published format by hand, and the real corpus if present."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from dlm.core.errors import UserError
from dlm.corpora import babi_dialog, registry
from dlm.corpora.babi_dialog import (
    COUNTS,
    SPLITS,
    known_names,
    published_text,
    read_dialogues,
    rename,
)
from dlm.dialogue.schema import Dialogue, Message, response_units, validate

TASK_5 = """\
1 hi\thello what can i help you with today
2 a table in paris\tok let me look into some options for you
3 <SILENCE>\tapi_call italian paris six cheap
4 instead with thai food\tok let me look into some options for you
5 <SILENCE>\tapi_call thai paris six cheap
6 resto_a R_phone resto_a_phone
7 resto_a R_rating 3
8 resto_b R_phone resto_b_phone
9 <SILENCE>\twhat do you think of this option: resto_a
10 no\tsure let me find an other option for you
11 <SILENCE>\twhat do you think of this option: resto_b

1 hello\thello what can i help you with today
"""

TASK_6 = """\
1 <SILENCE>\tHello , welcome .\x20
2 canapes please\tapi_call canapes R_location moderate
3 api_call no result
4 <SILENCE>\tSorry there is no canapes restaurant
5 anything\tapi_call R_cuisine R_location R_price
6 chop_house R_cuisine asian_oriental
7 thanks\t you are welcome
"""

TASK_4 = """\
1 resto_a R_phone resto_a_phone
2 resto_a R_cuisine thai
3 hi\there it is resto_a_phone
"""


def read_text(tmp_path, text: str, task: int) -> list[Dialogue]:
    path = tmp_path / "file.txt"
    path.write_text(text, encoding="utf-8")
    dialogues = list(read_dialogues(path, task, "train"))
    for dialogue in dialogues:
        validate(dialogue, "test")
    return dialogues


def reply(text: str) -> Message:
    return Message("assistant", text, "reply")


def call(**arguments: str) -> Message:
    return Message("assistant", channel="call", name="api_call", arguments=arguments)


def test_task_5_by_hand(tmp_path):
    """Calls, the one result of the second call, silence before and after it, all in order."""
    first, second = read_text(tmp_path, TASK_5, 5)
    looking = reply("ok let me look into some options for you")
    assert first.messages == (
        Message("user", "hi"),
        reply("hello what can i help you with today"),
        Message("user", "a table in paris"),
        looking,
        Message("user", ""),
        call(cuisine="italian", location="paris", number="six", price="cheap"),
        Message("user", "instead with thai food"),
        looking,
        Message("user", ""),
        call(cuisine="thai", location="paris", number="six", price="cheap"),
        Message(
            "tool",
            "resto_a phone resto_a_phone rating 3\nresto_b phone resto_b_phone",
            name="api_call",
        ),
        reply("what do you think of this option: resto_a"),
        Message("user", "no"),
        reply("sure let me find an other option for you"),
        Message("user", ""),
        reply("what do you think of this option: resto_b"),
    )
    assert (first.id, second.id, second.task) == ("task5-train-0", "task5-train-1", "task5")
    assert len(second.messages) == 2
    assert first.meta["entities"] == ["italian", "paris", "thai"]


def test_task_6_by_hand(tmp_path):
    """Slots left open are no arguments; "no result" is a result; spaces of a reply are kept."""
    (dialogue,) = read_text(tmp_path, TASK_6, 6)
    assert dialogue.messages == (
        Message("user", ""),
        reply("Hello , welcome . "),
        Message("user", "canapes please"),
        call(cuisine="canapes", price="moderate"),
        Message("tool", "no result", name="api_call"),
        reply("Sorry there is no canapes restaurant"),
        Message("user", "anything"),
        call(),
        Message("tool", "chop_house cuisine asian_oriental", name="api_call"),
        Message("user", "thanks"),
        reply(" you are welcome"),
    )
    assert dialogue.meta["entities"] == ["asian", "canapes", "oriental"]


def test_facts_before_the_dialogue_are_context(tmp_path):
    """Facts that no call asked for are given to the model, not returned by a tool."""
    (dialogue,) = read_text(tmp_path, TASK_4, 4)
    assert dialogue.messages[0] == Message("context", "resto_a phone resto_a_phone cuisine thai")


@pytest.mark.parametrize(("text", "task"), [(TASK_5, 5), (TASK_6, 6), (TASK_4, 4)])
def test_the_bots_words_can_be_had_back(tmp_path, text, task):
    """Every bot turn is one response unit, and its published text comes back exactly."""
    dialogues = read_text(tmp_path, text, task)
    published = [line.split("\t")[1] for line in text.splitlines() if "\t" in line]
    written = [
        published_text(dialogue.messages[unit[-1]], task)
        for dialogue in dialogues
        for unit in response_units(dialogue)
    ]
    assert written == published


@pytest.mark.parametrize(
    "line", ["2 hello", "2 a b c d", "x hi\thello", "2 a\tb\tc", "2 resto_a phone resto_a_phone"]
)
def test_a_bad_line_is_named(tmp_path, line):
    """A line that is neither a turn nor a fact is an error with file and line."""
    with pytest.raises(UserError, match=r"file.txt:2: neither 'N user<TAB>bot' nor"):
        read_text(tmp_path, f"1 hi\thello\n{line}\n", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"1 a\tapi_call thai paris\n",
            r"file\.txt: dialogue 0: no record of this corpus: zip",
        ),
        (b"1 a\tb\n2 \xff\tc\n", r"file\.txt: not UTF-8 at byte 8$"),
    ],
)
def test_damage_is_told(tmp_path, text, message):
    """A call of other slots, and a byte that is no text."""
    path = tmp_path / "file.txt"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        list(read_dialogues(path, 5, "train"))


@pytest.fixture
def small_corpus(tmp_path, monkeypatch):
    """A folder with the four files of task 5, and counts to match."""
    folder = tmp_path / "dialog-bAbI-tasks"
    folder.mkdir()
    for name in SPLITS.values():
        (folder / f"dialog-babi-task5{name}.txt").write_text(TASK_5)
    monkeypatch.setitem(COUNTS, 5, dict.fromkeys(SPLITS, (2, 9)))
    return tmp_path


def test_prepare_finds_the_release_in_its_folder(small_corpus, tmp_path):
    """The folder of the release, or the one above it, may be named; all splits are there."""
    options = {"task": 5, "path": str(small_corpus)}
    prepared = registry.prepare("babi_dialog", options, tmp_path / "built")
    assert list(prepared.splits) == [*SPLITS, "validation_renamed"]
    test = {"dialogues": 2, "messages": 18, "responses": 9}
    known = {"also_in_train": 2, "also_in_validation": 2}
    assert prepared.counts["test_oov"] == test | known
    assert prepared.splits["test_oov"][1].id == "task5-test_oov-1"
    inner = {"task": 5, "path": str(small_corpus / "dialog-bAbI-tasks")}
    again = registry.prepare("babi_dialog", inner, tmp_path / "built")
    assert again.digest == prepared.digest


def test_names_are_made_up_alike_in_the_whole_dialogue(tmp_path):
    """Whatever is said of a name is said of the new one: its mentions, its calls, its facts."""
    facts = TASK_5.replace("resto_a R_rating 3", "resto_paris_thai R_location paris")
    (told, _) = read_text(tmp_path, facts, 5)
    new = rename(told, 0)
    validate(new, "test")
    cuisine, location = new.messages[5].arguments["cuisine"], new.messages[5].arguments["location"]
    thai = new.messages[9].arguments["cuisine"]
    assert len({cuisine, location, thai, "italian", "paris", "thai"}) == 6
    assert sorted((cuisine, location, thai)) == new.meta["entities"]
    assert new.messages[2].content == f"a table in {location}"
    assert new.messages[6].content == f"instead with {thai} food"
    assert f"resto_{location}_{thai} location {location}" in new.messages[10].content
    assert new.messages[9].arguments["price"] == "cheap"
    assert rename(told, 0) == new != rename(told, 1)
    assert new.id == "task5-train-0-renamed-0"


def test_known_names_change_places(tmp_path):
    """Each stands for one of its kind, wherever it stands; two never for the same."""
    facts = TASK_5.replace("resto_a R_rating 3", "resto_paris_thai R_location paris")
    told = list(read_text(tmp_path, facts, 5))
    assert told[0].meta["names"] == {"cuisine": ["italian", "thai"], "location": ["paris"]}
    assert known_names(told) == [["italian", "thai"], ["paris"]]
    both = replace(told[0], meta={"names": {"cuisine": [], "location": ["thai"]}})
    assert known_names([told[0], both]) == [["italian", "thai"], ["paris"]]
    known = [["italian", "thai", "lebanese"], ["paris", "rome"]]
    found = set()
    for number in range(40):
        new = rename(told[0], number, known)
        cuisine, location = (new.messages[5].arguments[k] for k in ("cuisine", "location"))
        thai = new.messages[9].arguments["cuisine"]
        assert f"resto_{location}_{thai} location {location}" in new.messages[10].content
        assert new.meta["entities"] == sorted({cuisine, location, thai})
        found.add((cuisine, thai, location))
    pairs = [(a, b) for a in known[0] for b in known[0] if a != b]
    assert found == {(*pair, location) for pair in pairs for location in known[1]}
    twin = replace(told[0], id="twin")
    same = [rename(told[0], n, known).messages == rename(twin, n, known).messages for n in range(9)]
    assert not all(same)


def test_names_of_training_are_made_up_or_known(small_corpus, tmp_path):
    """Known ones are of the training file; to choose by are made-up ones, whatever is trained."""
    folder = small_corpus / "dialog-bAbI-tasks"
    unseen = TASK_5.replace("thai", "korean").replace("paris", "seoul")
    (folder / "dialog-babi-task5tst-OOV.txt").write_text(unseen)
    options = {"path": str(small_corpus), "renamed": 4, "names": "known"}
    made_up = registry.prepare("babi_dialog", options | {"names": "made up"}, tmp_path / "built")
    prepared = registry.prepare("babi_dialog", options, tmp_path / "built")
    plain = registry.prepare("babi_dialog", {"path": str(small_corpus)}, tmp_path / "built")
    known = {name for dialogue in plain.splits["train"] for name in dialogue.meta["entities"]}
    said = {name for dialogue in prepared.splits["train"] for name in dialogue.meta["entities"]}
    assert said == known == {"italian", "thai", "paris"}
    calls = [m.arguments for d in prepared.splits["train"] for m in d.messages if m.arguments]
    assert {call["location"] for call in calls} == {"paris"}
    assert {call["cuisine"] for call in calls} == {"italian", "thai"}
    others = {name for dialogue in made_up.splits["train"] for name in dialogue.meta["entities"]}
    assert not others & known
    assert list(prepared.splits["validation_renamed"]) == list(plain.splits["validation_renamed"])
    with pytest.raises(
        UserError, match="names='new' is none of 'made up', 'made up of all', 'known'"
    ):
        registry.prepare("babi_dialog", options | {"names": "new"}, tmp_path / "built")


def test_of_the_published_splits_training_alone_is_renamed(small_corpus, tmp_path):
    """As many copies of each as asked for; what is scored stays as it was published."""
    options = {"path": str(small_corpus), "renamed": 3}
    prepared = registry.prepare("babi_dialog", options, tmp_path / "built")
    plain = registry.prepare("babi_dialog", {"path": str(small_corpus)}, tmp_path / "built")
    assert prepared.counts["train"]["dialogues"] == 6
    assert list(prepared.splits["test"]) == list(plain.splits["test"])
    said = [
        dialogue.messages[2].content
        for dialogue in prepared.splits["train"]
        if dialogue.id.startswith("task5-train-0-")
    ]
    assert len(set(said)) == 3
    assert "a table in paris" not in said


def test_one_chooses_by_renamed_validation_dialogues(small_corpus, tmp_path):
    """Those of validation, once each, with made-up names; validation itself stays as published."""
    prepared = registry.prepare("babi_dialog", {"path": str(small_corpus)}, tmp_path / "built")
    plain, renamed = (prepared.splits[name] for name in ("validation", "validation_renamed"))
    assert list(renamed) == [rename(dialogue, 0) for dialogue in plain]
    assert renamed[0].id == "task5-validation-0-renamed-0"
    assert plain[0].messages[2].content == "a table in paris" != renamed[0].messages[2].content


def test_made_up_names_are_of_any_letters(tmp_path):
    """Three consonants or vowels stand in a row, too; no name is a word of the dialogue.

    A dialogue that says nothing is renamed as well.
    """
    (told, _) = read_text(tmp_path, TASK_5, 5)
    names = [name for n in range(300) for name in rename(told, n).meta["entities"]]
    assert {len(name) for name in names} == set(range(3, 11))
    assert set("".join(names)) == set("abcdefghijklmnopqrstuvwxyz")
    assert any(re.search("[^aeiou]{3}", name) for name in names)
    assert any(re.search("[aeiou]{3}", name) for name in names)
    assert "abc" not in babi_dialog._made_up(random.Random(0), 3000, ["abc"])
    calls = tuple(m for m in told.messages if m.channel == "call")
    silent = rename(replace(told, messages=calls), 0)
    assert silent.messages[0].arguments["cuisine"] in silent.meta["entities"]


def test_names_made_up_of_all_hold_words_of_calls_and_facts(small_corpus, tmp_path):
    """Whole words, too; what one chooses by has the names that it had."""
    (told, _) = read_text(tmp_path, TASK_5, 5)
    new = [rename(told, n, of_all=True) for n in range(300)]
    of_all = [name for dialogue in new for name in dialogue.meta["entities"]]
    assert new[1].meta["entities"] == ["cheapth", "iocheapst", "runumberq"]
    assert rename(told, 1).meta["entities"] == ["etew", "hopt", "whathiosv"]
    calls_alone, facts_alone = "cuisine", "phone"
    for word in (calls_alone, facts_alone):
        assert any(word in name for name in of_all)
        assert word not in of_all
    options = {"path": str(small_corpus), "renamed": 2, "names": "made up of all"}
    prepared = registry.prepare("babi_dialog", options, tmp_path / "built")
    plain = registry.prepare("babi_dialog", {"path": str(small_corpus)}, tmp_path / "built")
    (first, *_) = plain.splits["train"]
    assert prepared.splits["train"][0] == rename(first, 0, of_all=True) != rename(first, 0)
    assert list(prepared.splits["validation_renamed"]) == list(plain.splits["validation_renamed"])


def test_results_may_be_context_and_names_untold(small_corpus, tmp_path):
    options = {"path": str(small_corpus), "results": "context", "entities": False}
    prepared = registry.prepare("babi_dialog", options, tmp_path / "built")
    for split in prepared.splits.values():
        dialogue = split[0]
        assert dialogue.meta == {}
        assert [m.role for m in dialogue.messages].count("context") == 1
        assert "tool" not in [m.role for m in dialogue.messages]
    with pytest.raises(UserError, match="results='reply' is neither 'tool' nor 'context'"):
        registry.prepare("babi_dialog", options | {"results": "reply"}, tmp_path / "built")


def test_other_counts_than_published_are_refused(small_corpus, tmp_path):
    """A file with a turn missing is not read as if it were the release."""
    path = small_corpus / "dialog-bAbI-tasks" / "dialog-babi-task5tst.txt"
    path.write_text(TASK_5.rpartition("\n1 hello")[0])
    with pytest.raises(
        UserError, match=r"5tst.txt: 1 dialogues with 8 responses, the release has 2"
    ):
        registry.prepare("babi_dialog", {"path": str(small_corpus)}, tmp_path / "built")


def test_a_missing_file_is_named_with_its_source(tmp_path, monkeypatch):
    """The message names file and folder, and where the release comes from."""
    monkeypatch.setenv("DLM_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError) as caught:
        registry.prepare("babi_dialog", {"task": 3}, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/dialog-babi: no file dialog-babi-task3trn.txt; unpack")
    assert "dialog-bAbI-tasks" in message
    assert "\n" not in message
    with pytest.raises(UserError, match="task: 7 is not a bAbI dialog task"):
        registry.prepare("babi_dialog", {"task": 7}, tmp_path)
    with pytest.raises(UserError, match="did you mean 'task'"):
        registry.prepare("babi_dialog", {"taks": 3}, tmp_path)


@pytest.mark.parametrize("task", sorted(COUNTS))
def test_the_real_corpus(corpus_dir, tmp_path, task):
    """Published counts hold for every split of every task (prepare asserts them)."""
    options = {"task": task, "path": str(corpus_dir("dialog-babi"))}
    prepared = registry.prepare("babi_dialog", options, tmp_path)
    counts = {s: (c["dialogues"], c["responses"]) for s, c in prepared.counts.items()}
    assert counts.pop("validation_renamed") == COUNTS[task]["validation"]
    assert counts == COUNTS[task]


@pytest.mark.parametrize("task", [4, 6])
def test_nothing_of_the_real_files_is_lost(corpus_dir, task):
    """Bot turns, spoken user turns and facts all come back, in the order of the file."""
    options = babi_dialog.Options(task, str(corpus_dir("dialog-babi")))
    path = babi_dialog.find_files(options)["test"]
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines() if line]
    messages = [m for d in read_dialogues(path, task, "test") for m in d.messages]
    bot = [published_text(m, task) for m in messages if m.role == "assistant"]
    assert bot == [line.split("\t")[1] for line in lines if "\t" in line]
    said = [m.content for m in messages if m.role == "user" and m.content]
    users = [line.split("\t")[0] for line in lines if "\t" in line]
    assert said == [user for user in users if user not in ("", "<SILENCE>")]
    facts = []
    for message in (m for m in messages if m.role in ("tool", "context")):
        for line in message.content.split("\n"):
            subject, *words = ("api_call " * (line == "no result") + line).split(" ")
            facts += [f"{subject} {a} {b}" for a, b in zip(words[::2], words[1::2], strict=True)]
    assert facts == [line.replace(" R_", " ") for line in lines if "\t" not in line]


def test_out_of_vocabulary_entities_are_in_no_training_text(corpus_dir):
    """The entities of test_oov occur in no training dialogue; those of test all do."""
    files = babi_dialog.find_files(babi_dialog.Options(1, str(corpus_dir("dialog-babi"))))
    entities = {
        split: {e for d in read_dialogues(files[split], 1, split) for e in d.meta["entities"]}
        for split in ("train", "test", "test_oov")
    }
    assert entities["test"] == entities["train"]
    assert not entities["test_oov"] & entities["train"]
    assert len(entities["test_oov"]) == len(entities["train"]) == 10
