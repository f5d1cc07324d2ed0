"""What a judge learns from, as the prompts of a run (docs/judge_training.md)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rewards.judge_training import words
from rlhf_platform.data.judge_tasks import demo_pairs, prompts_of
from rlhf_platform.data.labelled import read_labelled
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt


def judge_prompts(labelled: str | None) -> tuple[dict[str, list[Prompt]], str]:
    """Questions by split (`train`, `rl`, `heldout`), and a digest of them all.

    `labelled`: JSONL of labelled replies; None: those of the demo set `dialogue`. Raises what `read_labelled` raises,
    and DataError when a split has no pairs.
    """
    pairs = demo_pairs() if labelled is None else read_labelled(labelled)
    prompts = prompts_of(pairs, words())
    empty = [split for split, found in prompts.items() if not found]
    if empty:
        raise DataError(
            f"{labelled}: nothing to ask a judge about in {', '.join(empty)}; give pairs that are no ties, of the "
            "splits train and heldout"
        )
    return prompts, _digest(prompts)


def _digest(prompts: Mapping[str, Sequence[Prompt]]) -> str:
    plain = {split: [asdict(prompt) for prompt in found] for split, found in prompts.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
