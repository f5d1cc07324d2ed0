"""What a run of spoken dialogue refuses of its data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_platform.data.manifest import Row
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.recipe.schema import DataConfig
from rlhf_platform.train.preparing.dialogue import check_turns


def row(number: int, split: str = "rl", **metadata: Any) -> Row:
    path = Path("/data/manifest.jsonl")
    return Row(path, number, str(number), Path("/data/a.flac"), "yes", "en", "a", 1.0, split, "CC0-1.0", None, metadata)


def recipe(**keys: Any) -> Any:
    return SimpleNamespace(dialogue=DialogueConfig(**keys), data=DataConfig(rl_split="rl"))


def exchange() -> list[dict[str, str]]:
    return [{"role": "user", "text": "a", "audio": "a.flac"}, {"role": "assistant", "text": "b"}]


def test_rows_within_the_turns_are_let_through() -> None:
    check_turns(recipe(most_turns=3), [row(1, said="hi"), row(2, said="hi", history=exchange() * 2)])


def test_a_row_that_is_no_dialogue_and_one_with_too_many_turns_are_named_together() -> None:
    with pytest.raises(DataError) as error:
        check_turns(recipe(most_turns=2), [row(1), row(2, said="hi", history=exchange() * 2)])
    assert "2 rows are no dialogue" in str(error.value)
    assert "row 1: metadata has no 'said'" in str(error.value)
    assert "row 2: it has 3 user turns" in str(error.value)
    assert "raise dialogue.most_turns from 2 to 3" in str(error.value)


def test_what_is_learnt_beside_may_be_transcripts_and_what_is_answered_may_not() -> None:
    check_turns(recipe(most_turns=2), [row(1, "train"), row(2, "other"), row(3, "rl", said="hi")])
    for split in ("rl", "heldout"):
        with pytest.raises(DataError, match=r"row 1: metadata has no 'said'"):
            check_turns(recipe(most_turns=2), [row(1, split)])


def test_turns_that_are_still_to_be_played_count() -> None:
    later = [{"audio": "b.flac", "text": "b", "reference": "c"}] * 3
    played = recipe(turns=3, most_turns=2)
    with pytest.raises(DataError, match=r"3 when it is played on with dialogue\.turns=3"):
        check_turns(played, [row(1, said="hi", next=later)])
    check_turns(recipe(turns=2, most_turns=2), [row(1, said="hi", next=later)])
