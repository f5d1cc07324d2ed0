"""Which tokens may stand where, against the rule said in words."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.token_rule import TokenRule

RULE = TokenRule(((1, 2), (3,), (4, 5)), ends=(7,))


def test_masks_are_the_codebooks_in_turn_and_the_first_with_the_ends() -> None:
    assert [mask.nonzero().flatten().tolist() for mask in RULE.masks(9)] == [[1, 2], [3], [4, 5], [1, 2, 7]]


@given(st.integers(0, 40), st.integers(0, 20))
def test_an_end_may_stand_between_frames_once_enough_was_said(step: int, end_from: int) -> None:
    row = int(RULE.rows(torch.tensor([step]), torch.tensor([end_from])))
    may_end = bool(RULE.masks(9)[row, 7])
    assert may_end == (step % 3 == 0 and step >= end_from)
    assert RULE.masks(9)[row, [1, 3, 4][step % 3]]


def test_text_may_end_anywhere() -> None:
    rule = TokenRule((tuple(range(5)),), ends=(5,))
    rows = rule.rows(torch.arange(4))
    assert rule.masks(6)[rows].all()
