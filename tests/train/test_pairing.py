"""Pairs of a group's answers: which are taken, and how far they lie apart."""

import pytest

from rlhf_platform.data.pairs import Pair
from rlhf_platform.train.pairing import ranked_pairs
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason


def group(name: str, *values: float | None) -> list[ScoredSample]:
    """The k-th answer is the token k; None has no reward."""
    prompt = Prompt(name, "", name, "en")
    outcomes = [Failed("raised", "no") if v is None else Scored(v, {}) for v in values]
    samples = [Sample(prompt, (k,), (-1.0,), "", StopReason.EOS, 0) for k in range(len(values))]
    return list(map(ScoredSample, samples, outcomes))


def told(pairs: list[Pair]) -> list[tuple[str, object, object, float]]:
    return [(p.prompt.id, p.chosen.tokens, p.rejected.tokens, round(p.margin, 6)) for p in pairs]


SCORED = group("a", 0.5, 0.1, 0.9, 0.3) + group("b", 0.2, None, 0.2, 0.2) + group("c", None, 1.0, 0.0, None)


def test_the_best_meets_the_worst_and_the_second_the_second() -> None:
    assert told(ranked_pairs(SCORED, 4, most=2)) == [
        ("a", (2,), (1,), 0.8),
        ("c", (1,), (2,), 1.0),
        ("a", (0,), (3,), 0.2),
    ]


def test_pairs_nearer_than_the_margin_are_left_out() -> None:
    assert [margin for *_, margin in told(ranked_pairs(SCORED, 4, most=2, margin=0.5))] == [0.8, 1.0]


def test_an_answer_is_in_one_pair_at_most() -> None:
    pairs = ranked_pairs(group("a", *(k / 10 for k in range(6))), 6, most=9)
    sides = [answer.tokens for pair in pairs for answer in (pair.chosen, pair.rejected)]
    assert len(pairs) == 3
    assert len(set(sides)) == len(sides)


@pytest.mark.parametrize("pair", ranked_pairs(SCORED, 4, most=1))
def test_a_pair_says_where_it_is_from(pair: Pair) -> None:
    assert pair.origin.source == "rollout"
