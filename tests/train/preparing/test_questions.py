"""What a judge learns from, out of a file of labelled replies or of the demo set."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_platform.data.judge_tasks import demo_pairs
from rlhf_platform.data.labelled import write_labelled
from rlhf_platform.errors import DataError
from rlhf_platform.train.preparing.questions import judge_prompts


def test_a_file_of_the_demo_pairs_gives_what_the_demo_gives(tmp_path: Path) -> None:
    write_labelled(tmp_path / "pairs.jsonl", demo_pairs())
    assert judge_prompts(str(tmp_path / "pairs.jsonl")) == judge_prompts(None)


def test_another_reply_is_another_digest(tmp_path: Path) -> None:
    pairs = demo_pairs()
    number = next(i for i, pair in enumerate(pairs) if pair.better == "a")
    pairs[number] = replace(pairs[number], a="very well")
    write_labelled(tmp_path / "pairs.jsonl", pairs)
    assert judge_prompts(str(tmp_path / "pairs.jsonl"))[1] != judge_prompts(None)[1]


def test_no_question_in_a_split_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    write_labelled(tmp_path / "pairs.jsonl", [pair for pair in demo_pairs() if pair.split == "train"])
    with pytest.raises(DataError, match=r"pairs\.jsonl: nothing to ask a judge about in heldout; "):
        judge_prompts(str(tmp_path / "pairs.jsonl"))
