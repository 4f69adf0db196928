"""BLEU of replies, with one reference or several."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored, said


def bleu(examples: Sequence[Example]) -> Scored:
    """`bleu`: corpus BLEU of the replies, by sacrebleu.

        BLEU = BP * exp(sum_{n=1..4} log p_n / 4)      counts summed over the corpus

    Texts enter as they are written: the case kept, names not delexicalised; a response without a
    reply enters as "". The references are those of `references_of`.

    Source: Papineni et al. 2002, ACL; Post 2018, arXiv:1804.08771.
    """
    from sacrebleu.metrics import BLEU

    written, wanted = replies(examples)
    if not written:
        return Scored({}, "")
    metric = BLEU()
    # sacrebleu wants the n-th reference of every text together, None where a text has fewer.
    streams = [
        [texts[place] if place < len(texts) else None for texts in wanted]
        for place in range(max(map(len, wanted)))
    ]
    figure = metric.corpus_score(written, streams).score / 100  # type: ignore[arg-type]  # None
    signature = f"replies, the case kept, names not delexicalised; {metric.get_signature()}"
    return Scored({"bleu": min(figure, 1.0)}, signature)  # a perfect score is 100 + 4e-14


def replies(examples: Sequence[Example]) -> tuple[list[str], list[list[str]]]:
    """What was written ("" without a reply) for each gold reply, and the references of each."""
    written, wanted = [], []
    for example in examples:
        for prediction in example.predictions:
            gold = said(prediction.gold, "reply")
            if gold is not None:
                written.append(said(prediction.predicted, "reply") or "")
                wanted.append(references_of(example, gold))
    return written, wanted


def references_of(example: Example, gold: str) -> list[str]:
    """The texts that a reply may equal: `meta.references` of a dialogue of one reply, or the gold.

    A corpus with several references an input gives one dialogue an input, the gold reply being one
    of them.
    """
    several = example.dialogue.meta.get("references")
    replied = sum(message.channel == "reply" for message in example.dialogue.messages)
    return [str(text) for text in several] if several and replied == 1 else [gold]
