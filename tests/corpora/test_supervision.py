"""What is learned of every corpus, by every template, is what was meant: docs/checks.md, C3 to C15.

A corpus that is registered needs a sample here; one whose files are absent skips by name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dlm.corpora import (
    api_bank,
    babi_dialog,
    banking77,
    camrest676,
    clinc150,
    clutrr,
    dailydialog,
    deal_or_no_deal,
    dream,
    e2e_nlg,
    jsonl,
    kg_small,
    llamafactory_demo,
    meld,
    mixture,
    mts_dialog,
    multiwoz,
    mutual,
    pathquestion,
    restaurants8k,
    sgd,
    sgd_head,
    webnlg2017,
    woz2,
    xdailydialog,
    xdailydialog_translation,
)
from dlm.corpora.concierge import builder
from dlm.corpora.registry import CORPORA
from dlm.corpora.tables import csv_rows
from dlm.data.pipeline import Batches
from dlm.data.recipe import Recipe
from dlm.data.store import build_or_load
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.encoding import CHANNEL_NAMES, Encoded, encode, fit_many
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import CHANNELS, Dialogue, Message, response_units, to_json
from dlm.dialogue.template import Rejected, Template, message_text, response
from dlm.dialogue.tokenizer import Tokenizer, TokenizerConfig, train
from tests.dialogue.chat_forms import FORMS, checkpoint

Root = Callable[[str], Path]
SIZE = 4  # dialogues of a sample
LEARN = PolicyConfig()
HOSTILE = "<|end|></s><|im_end|>[/INST]<|eot_id|><end_of_turn>"


def concierge(_root: Root, _folder: Path) -> list[Dialogue]:
    small = builder.Options(dialogues=SIZE, held_out=1, cities=2, unseen_cities=1)
    return builder.draw(small)["train"]


def babi(root: Root, _folder: Path) -> list[Dialogue]:
    config = babi_dialog.Options(5, str(root("dialog-babi")))
    path = babi_dialog.find_files(config)["test"]
    return list(islice(babi_dialog.read_dialogues(path, 5, "test"), SIZE // 2))


def daily(root: Root, _folder: Path) -> list[Dialogue]:
    chats = xdailydialog.read_evaluation(root("xdailydialog"), "en", "test")[: SIZE // 2]
    options = xdailydialog.Options()
    return [view for chat in chats for view in xdailydialog.views(chat, chat.where, options)]


def uneven(dialogues: Iterable[Dialogue]) -> list[Dialogue]:
    """The shortest and the longest of dialogues of one turn, so that a cut leaves some."""
    ordered = sorted(dialogues, key=lambda d: sum(len(str(m.content)) for m in d.messages))
    return [*ordered[: SIZE // 2], *ordered[-SIZE // 2 :]]


def few(dialogues: Iterable[Dialogue]) -> list[Dialogue]:
    """Uneven ones of the first."""
    return uneven(islice(dialogues, 5 * SIZE))


def clinc(root: Root, _folder: Path) -> list[Dialogue]:
    found = clinc150.read_queries(root("clinc150") / "data/data_small.json", "test")
    return few(islice(found, 0, None, 100))  # of many intents


def banking(root: Root, _folder: Path) -> list[Dialogue]:
    return few(banking77.read_messages(root("banking77") / "banking_data/test.csv", "test"))


def restaurants(root: Root, _folder: Path) -> list[Dialogue]:
    path = root("restaurants8k") / "span_extraction/restaurant8k/train_8.json"
    return few(restaurants8k.read_messages(path, "train", 32))


def woz(root: Root, _folder: Path) -> list[Dialogue]:
    return few(woz2.read_dialogues(root("woz2") / "data/woz/woz_test_it.json", "test"))


def camrest(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("camrest676")
    database = camrest676.Database(camrest676.read_commented(folder / "db/CamRest.json"))
    records = camrest676.read_commented(folder / "data/CamRest676.json")
    return few(camrest676.parse_dialogue(record, database) for record in records)


def schema_guided(root: Root, _folder: Path) -> list[Dialogue]:
    return guided(root("sgd"), sgd.parse_dialogue)


def schema_guided_head(root: Root, _folder: Path) -> list[Dialogue]:
    return guided(root("sgd-head-partial"), sgd_head.parse_dialogue)


def guided(folder: Path, parse: Callable[..., Dialogue]) -> list[Dialogue]:
    paths = [folder / "dev/dialogues_001.json"]
    read = partial(parse, schema=True)
    return few(sgd.read_dialogues(folder, paths, "validation", read=read))


def cambridge(root: Root, _folder: Path) -> list[Dialogue]:
    return few(multiwoz.read_21(root("multiwoz") / "multiwoz/val.json"))


def tools(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("api-bank") / "api-bank"
    paths = [min((folder / level).glob("*.*")) for level in api_bank.LEVELS]
    found = api_bank.read_dialogues(paths, folder / api_bank.DESCRIPTIONS)
    return list(islice(found, len(paths)))


def own_file(_root: Root, folder: Path) -> list[Dialogue]:
    """Every role and channel, several calls, other scripts, weights, and control tokens' names."""
    turns = (
        Message("system", "be brief"),
        Message("context", "it is late"),
        Message("user", f"Zoë 東京 {HOSTILE}"),
        *(Message("assistant", f"{name} 🙂", name) for name in ("intent", "state", "reason")),
        Message("assistant", "", "call", "find", {"q": "é"}, weight=0.5),
        Message("tool", "one\ntwo", name="find"),
        Message("assistant", "", "call", "find", {}),
        Message("tool", "three", name="find"),
        *(Message("assistant", f"done {HOSTILE}", name) for name in ("act", "reply")),
        Message("user", "thanks"),
        Message("assistant", "never mind", weight=0.0),
        Message("user", "bye"),
        Message("assistant", "bye"),
    )
    tools = ({"name": "find", "description": "finds", "parameters": {"type": "object"}},)
    cases = [
        Dialogue("a", turns, tools=tools),
        Dialogue("b", turns[2:]),
        Dialogue("c", turns[-2:]),
        Dialogue("d", (*turns[:3], *turns[-3:])[1:3] + turns[-1:]),
    ]
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(to_json(case)) + "\n" for case in cases), encoding="utf-8")
    found = jsonl.prepare({"path": str(path)}, folder).splits
    return [dialogue for split in found.values() for dialogue in split]


def mixed(root: Root, folder: Path) -> list[Dialogue]:
    """The same file as one part, and a city's dialogues as another."""
    own_file(root, folder)
    city = {"dialogues": SIZE, "held_out": 1, "cities": 2, "unseen_cities": 1}
    parts = {
        "own": {"name": "jsonl", "options": {"path": str(folder / "own.jsonl")}},
        "city": {"name": "concierge", "options": city},
    }
    return list(mixture.prepare({"parts": parts}, folder).splits["train"])


def relations(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("clutrr") / "data_089907f8"
    return [
        clutrr.parse_row(row, where, where)
        for steps in (2, 6)
        for where, row in islice(
            csv_rows(folder / f"1.{steps}_test.csv", clutrr.COLUMNS), SIZE // 2
        )
    ]


def official(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("dailydialog-valtest")
    chats = dailydialog.read_chats([folder / name for name in dailydialog.FILES["test"]])
    options = dailydialog.Options()
    return list(islice(dailydialog.views(chats, "test", options), 1, SIZE))


def first(reader: Callable[..., Iterator[Dialogue]], archive: str, file: str, *options: Any):
    """A sample: the first dialogues that a reader gives of a file."""

    def sample(root: Root, _folder: Path) -> list[Dialogue]:
        return list(islice(reader(root(archive) / file, *options), SIZE))

    return sample


def links(root: Root, _folder: Path) -> list[Dialogue]:
    known = kg_small.read_triples(root("kg-small") / "umls/test.tsv", 661)
    return uneven(kg_small.ask_all(known, "test", known))


def choices(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("mutual") / "data/mutual/dev"
    return list(mutual.read_files(folder / f"dev_{number}.txt" for number in range(1, SIZE + 1)))


def paths(root: Root, _folder: Path) -> list[Dialogue]:
    chosen = pathquestion.SETS["PQ-2H"]
    questions = pathquestion.read_questions(root("pathquestion") / chosen.file, chosen)
    return uneven(pathquestion.dialogue(q, str(n)) for n, q in enumerate(questions))


def facts(root: Root, _folder: Path) -> list[Dialogue]:
    folder = root("webnlg2017")
    files = webnlg2017.find_entries(folder, "test")
    return uneven(webnlg2017.read_split(folder, files, "test"))


def translated(root: Root, _folder: Path) -> list[Dialogue]:
    folder, options = root("xdailydialog"), xdailydialog_translation.Options()
    pairs = zip(
        xdailydialog.read_evaluation(folder, "en", "test")[:SIZE],
        xdailydialog.read_evaluation(folder, "it", "test")[:SIZE],
        strict=True,
    )
    return [xdailydialog_translation.translated(*p, p[0].where, options) for p in pairs]


SAMPLES = {
    "api_bank": tools,
    "babi_dialog": babi,
    "banking77": banking,
    "camrest676": camrest,
    "clinc150": clinc,
    "clutrr": relations,
    "concierge": concierge,
    "dailydialog": official,
    "deal_or_no_deal": first(
        deal_or_no_deal.read_split, "deal-or-no-deal", "negotiate/test.txt", "test"
    ),
    "dream": first(dream.read_split, "dream", "data/dev.json", "validation"),
    "e2e_nlg": first(e2e_nlg.read_split, "e2e-nlg", e2e_nlg.FILES["test"], "test"),
    "jsonl": own_file,
    "kg_small": links,
    "llamafactory_demo": first(
        *(llamafactory_demo.read_file, "llamafactory-demo"),
        *(llamafactory_demo.FILES["toolcall"], "toolcall"),
    ),
    "meld": first(
        *(meld.read_split, "meld", "data/MELD/dev_sent_emo.csv"),
        *(meld.SETS["meld"], "validation"),
    ),
    "mixture": mixed,
    "mts_dialog": first(mts_dialog.read_split, "mts-dialog", mts_dialog.FILES["test"], "test"),
    "multiwoz": cambridge,
    "mutual": choices,
    "pathquestion": paths,
    "restaurants8k": restaurants,
    "sgd": schema_guided,
    "sgd_head": schema_guided_head,
    "webnlg2017": facts,
    "woz2": woz,
    "xdailydialog": daily,
    "xdailydialog_translation": translated,
}
TEMPLATES = ("builtin", *FORMS)


def test_every_registered_corpus_has_a_sample():
    assert SAMPLES.keys() == CORPORA.keys()


class Case(NamedTuple):
    """A sample as one template writes it; `encoded` are whole dialogues."""

    dialogues: list[Dialogue]
    template: Template
    encoded: list[Encoded]


@pytest.fixture(scope="module", params=CORPORA)
def sample(request, corpus_dir, tmp_path_factory) -> list[Dialogue]:
    return SAMPLES[request.param](corpus_dir, tmp_path_factory.mktemp("corpus"))


@cache
def own_tokenizer() -> Tokenizer:
    return train(["a table for four, please", "東京 🙂"] * 9, (), TokenizerConfig(vocab_size=300))


@cache
def template_of(name: str) -> Template:
    builtin = name == "builtin"
    return BuiltinTemplate(own_tokenizer()) if builtin else ChatTemplate(checkpoint(name))


def taken(dialogue: Dialogue, name: str) -> Dialogue:
    """The dialogue as a template takes it: Gemma's has no system message."""
    kept = (m for m in dialogue.messages if name != "gemma" or m.role != "system")
    return replace(dialogue, messages=tuple(kept))


@pytest.fixture(scope="module", params=TEMPLATES)
def case(request, sample) -> Case:
    """What a template takes of a sample; some refuse an order of roles, by name."""
    template, pairs = template_of(request.param), []
    for dialogue in (taken(dialogue, request.param) for dialogue in sample):
        try:
            pairs.append((dialogue, encode(dialogue, template, LEARN)))
        except Rejected as error:
            refused = str(error)
    if not pairs:
        pytest.skip(f"{request.param} takes none of it: {refused}")
    return Case([dialogue for dialogue, _ in pairs], template, [encoded for _, encoded in pairs])


def ids_of(encoded: Encoded) -> list[int]:
    return [int(encoded.tokens[0]), *encoded.targets.tolist()]


def blocks(encoded: Encoded, template: Template) -> list[list[int]]:
    """The learned targets, cut behind each terminator."""
    found: list[list[int]] = [[]]
    for token in encoded.targets[encoded.loss_weights > 0].tolist():
        found[-1].append(token)
        if token in template.ends:
            found.append([])
    assert not found.pop(), "what is learned last has no terminator"
    return found


def everything(dialogue: Dialogue) -> Dialogue:
    """The dialogue with weight 1 throughout."""
    return replace(dialogue, messages=tuple(replace(m, weight=1.0) for m in dialogue.messages))


def spelled(message: Message) -> tuple[str | None, str]:
    return message.channel, message_text(message).strip()


def assert_spelled(encoded: Encoded, dialogue: Dialogue, template: Template) -> None:
    """Learned targets are the assistant's messages, whole, with their terminators, no others."""
    said = [m for m in dialogue.messages if m.role == "assistant"]
    read = [m for block in blocks(encoded, template) for m in response(template, block)]
    assert [spelled(m) for m in read] == [spelled(m) for m in said]
    names = {CHANNEL_NAMES[i] for i in encoded.channel_ids[encoded.loss_weights > 0]}
    assert names <= set(CHANNELS)


def test_labels_spell_the_span_and_its_end(case):
    """C3, C4: every message is learned to the letter with its terminator, nobody else's is."""
    for dialogue in map(everything, case.dialogues):
        assert_spelled(encode(dialogue, case.template, LEARN), dialogue, case.template)


def without_end(encoded, template):
    ends = np.isin(encoded.targets, list(template.ends))
    return replace(encoded, loss_weights=np.where(ends, 0, encoded.loss_weights))


def shifted(by):
    return lambda encoded, template: replace(
        encoded, loss_weights=np.roll(encoded.loss_weights, by)
    )


def full(encoded, template):
    return replace(encoded, loss_weights=np.ones_like(encoded.loss_weights))


@pytest.mark.parametrize("mutant", [without_end, shifted(1), shifted(-1), full])
@pytest.mark.parametrize("name", TEMPLATES)
def test_wrong_labels_are_seen(name, mutant, tmp_path):
    """C3, C4: a masked terminator, a shifted and a full mask fail the check above."""
    template = template_of(name)
    dialogue = everything(taken(own_file(None, tmp_path)[0], name))
    wrong = mutant(encode(dialogue, template, LEARN), template)
    with pytest.raises((AssertionError, ValueError)):
        assert_spelled(wrong, dialogue, template)


def pieces_of(case: Case, mode: str) -> list[list[Encoded] | Rejected]:
    """The dialogues cut to two thirds of the longest one."""
    length = max(len(encoded.tokens) for encoded in case.encoded) * 2 // 3
    evaluation = mode == "evaluation"
    overflow = "drop" if evaluation else mode
    return fit_many(case.dialogues, case.template, LEARN, length, overflow, evaluation)


@pytest.mark.parametrize("mode", ["drop", "split", "evaluation"])
def test_no_empty_or_full_mask_passes(case, mode):
    """C5: after truncation something of each piece is learned and something only read."""
    found = pieces_of(case, mode)
    assert any(isinstance(pieces, list) for pieces in found)
    for pieces in found:
        for piece in [] if isinstance(pieces, Rejected) else pieces:
            assert 0 < np.count_nonzero(piece.loss_weights) < len(piece.loss_weights)


def test_a_dialogue_without_a_weight_is_refused(case):
    """C5: by name, whatever its length."""
    for dialogue in case.dialogues:
        silent = tuple(replace(message, weight=0.0) for message in dialogue.messages)
        [refused] = fit_many([replace(dialogue, messages=silent)], case.template, LEARN, 10_000)
        assert isinstance(refused, Rejected)
        assert dialogue.id in str(refused)


def test_one_rendering(case):
    """C6: the prompt for each response is the beginning of what training sees, bit for bit."""
    for dialogue, encoded in zip(case.dialogues, case.encoded, strict=True):
        whole = ids_of(encoded)
        for unit in response_units(dialogue):
            first = replace(dialogue, messages=dialogue.messages[: unit[0]])
            prompt = case.template.prompt(first)
            assert whole[: len(prompt)] == prompt
            assert encoded.unit_ids[len(prompt) - 1] >= 0  # and the response begins there


def test_one_bos(case):
    """C7: training and prompts begin with as many as the template puts, and have none inside."""
    bos = getattr(case.template, "bos", "")
    for dialogue, encoded in zip(case.dialogues, case.encoded, strict=True):
        for ids in (ids_of(encoded), case.template.prompt(dialogue)):
            names = [case.template.tokenizer.control_name(token) for token in ids]
            assert names.count(bos) == bool(bos)
            assert not bos or names[0] == bos


def controls(dialogue: Dialogue, template: Template) -> list[str]:
    ids = [token for message in template.render(dialogue) for token in message.ids]
    return [name for name in map(template.tokenizer.control_name, ids) if name]


def test_content_is_never_control(case):
    """C8: with every control token's name in every text the same control ids are there."""
    tokenizer = case.template.tokenizer
    names = filter(None, map(tokenizer.control_name, range(tokenizer.vocab_size)))
    hostile = HOSTILE + "".join(names)
    for dialogue in case.dialogues:
        said = tuple(
            m if m.channel == "call" else replace(m, content=f"a{m.content}{hostile}")
            for m in dialogue.messages
        )
        plain = tuple(
            m if m.channel == "call" else replace(m, content="a") for m in dialogue.messages
        )
        attacked = controls(replace(dialogue, messages=said), case.template)
        assert attacked == controls(replace(dialogue, messages=plain), case.template)


def test_caches_know_corpus_and_template():
    """C9: of no two corpora and templates is the key the same, were the tokenizer the same."""
    parts: dict = {"policy": LEARN, "length": 64, "overflow": "drop"}
    parts |= {"evaluation": False, "groups": False}
    keys = {
        Recipe("train", data, "t", t.digest, code="c", **parts).key
        for t in map(template_of, TEMPLATES)
        for data in CORPORA
    }
    assert len(keys) == len(TEMPLATES) * len(CORPORA)


def learned(pieces: list[Encoded]) -> dict[int, Counter]:
    """By turn, what is learned: how often which (target, weight)."""
    found: dict[int, Counter] = {}
    for piece in pieces:
        on = piece.loss_weights > 0
        rows = zip(piece.turn_ids[on], piece.targets[on], piece.loss_weights[on], strict=True)
        for turn, target, weight in rows:
            found.setdefault(int(turn), Counter())[int(target), float(weight)] += 1
    return found


@pytest.mark.parametrize("mode", ["drop", "split", "evaluation"])
def test_truncation_cuts_no_message(case, mode):
    """C10: a turn is learned whole or not at all, and every learned message has its end."""
    for pieces, encoded in zip(pieces_of(case, mode), case.encoded, strict=True):
        if not isinstance(pieces, Rejected):
            whole = learned([encoded])
            assert all(counts == whole[turn] for turn, counts in learned(pieces).items())


def test_packing_loses_nothing(case, tmp_path):
    """C15: over an epoch each learned target of each dialogue comes out as often as it went in."""
    wanted = Counter()
    for index, encoded in enumerate(case.encoded):
        for turn, counts in learned([encoded]).items():
            wanted.update({(index, turn, *key): count for key, count in counts.items()})
    builtin = isinstance(case.template, BuiltinTemplate)
    for policy in (LEARN, PolicyConfig(expand=True))[: 1 + builtin]:
        assert packed(case, policy, tmp_path) == wanted


def packed(case: Case, policy: PolicyConfig, folder: Path) -> Counter:
    """What is learned in the batches of an epoch, its last one not full."""
    length = max(len(encoded.tokens) for encoded in case.encoded)
    pieces = build_or_load(
        *(case.dialogues, case.template, policy, length),
        **{"name": "train", "data_digest": "d", "cache_dir": folder},
    )
    rows = Batches(pieces, 1, length).num_steps()
    batches = Batches(pieces, next(n for n in (2, 3, 5) if rows % n), length)
    found: Counter = Counter()
    for step in range(batches.num_steps()):
        batch = batches.batch(step)
        for row, position in np.argwhere(batch.loss_weights > 0):
            segment = batch.segment_ids[row, position] - 1
            where = int(batch.dialogue_ids[row, segment]), int(batch.turn_ids[row, position])
            here = batch.targets[row, position], batch.loss_weights[row, position]
            found[*where, int(here[0]), float(here[1])] += 1
    return found
