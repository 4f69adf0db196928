"""Scores of generated text: BLEU with its signature, and exact matches."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.core.mean import Mean


def corpus_bleu(predicted: Sequence[str], gold: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU of one reference a text, by sacrebleu.

        BLEU = BP * exp(sum_{n=1..4} log p_n / 4)      counts summed over the corpus

    The texts enter as they are written: the case kept, names not delexicalised; sacrebleu's 13a
    tokeniser and exponential smoothing, as its signature says.

    Args:
      predicted: what the model wrote; "" where it wrote no reply.
      gold: the reference of each.

    Returns:
      BLEU as a share in 0..1 (sacrebleu's own number over 100), and sacrebleu's signature, which
      stands beside the figure wherever it is printed.

    Raises:
      ValueError: no texts, or not as many of one as of the other.

    Source: Papineni et al. 2002, ACL; Post 2018, arXiv:1804.08771.
    """
    if len(predicted) != len(gold) or not gold:
        raise ValueError(f"BLEU of {len(predicted)} texts against {len(gold)} references")
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(list(predicted), [list(gold)]).score
    return min(score / 100, 1.0), str(metric.get_signature())  # a perfect score is 100 + 4e-14


def exact_match(predicted: Sequence[object], gold: Sequence[object]) -> Mean:
    """Share of predictions that equal the gold ones; of texts, in every character.

    Args:
      predicted: texts, or tuples of messages.
      gold: the same of the corpus, one each.

    Raises:
      ValueError: not as many of one as of the other.
    """
    pairs = zip(predicted, gold, strict=True)
    return Mean(float(sum(ours == theirs for ours, theirs in pairs)), float(len(gold)))
