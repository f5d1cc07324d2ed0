"""What the warm start is fed: order of clips, labels, masked features."""

from collections import Counter
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.load import load_adapter
from rlhf_platform.learner.sft import TranscriptCollator, clip_order, spec_augment
from rlhf_platform.types import Prompt

DURATIONS = st.lists(st.floats(0.1, 10), min_size=1, max_size=30)


@given(DURATIONS, st.integers(0, 5), st.integers(0, 9))
def test_without_a_curriculum_every_pass_sees_every_clip_once(durations: list[float], passes: int, seed: int) -> None:
    order = clip_order(durations, passes * len(durations), 0.0, seed)
    assert Counter(order) == dict.fromkeys(range(len(durations)), passes) or passes == 0
    assert order == clip_order(durations, passes * len(durations), 0.0, seed)


def test_the_curriculum_starts_with_the_shortest_fifth_and_ends_with_all() -> None:
    durations = [float(i) for i in range(100)]
    order = clip_order(durations, 4000, 0.5, seed=1)
    assert max(order[:20]) < 22  # the pool has grown by less than a clip in a hundred by then
    assert max(order[900:1000]) < 62  # half of the ramp: three fifths of the clips
    assert Counter(order[2000:]) == dict.fromkeys(range(100), 20)


def test_labels_stand_on_the_transcript_and_its_end_and_nowhere_else(
    tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    batch = TranscriptCollator(adapter, clips, spec_augment=False)([{"row": 2}, {"row": 0}])
    for row, clip in zip(range(2), (clips[2], clips[0]), strict=True):
        prompt, target = adapter.encode(clip), adapter.target(clip)
        size = len(prompt.token_ids) + len(target)
        assert tuple(batch["input_ids"][row, :size].tolist()) == (*prompt.token_ids, *target)
        assert batch["attention_mask"][row].sum() == size
        labelled = batch["labels"][row] != -100
        assert tuple(batch["labels"][row][labelled].tolist()) == target
        assert labelled.nonzero().flatten().tolist() == list(range(len(prompt.token_ids), size))
        features = prompt.clips[0].features
        assert torch.equal(batch["input_features"][row, :, : features.shape[1]], features)


def test_spec_augment_blanks_bands_to_the_mean_and_keeps_the_padding() -> None:
    torch.manual_seed(0)
    features, mask = torch.randn(3, 40, 200), torch.ones(3, 200, dtype=torch.long)
    features[1, :, 120:], mask[1, 120:] = 0, 0
    masked = spec_augment(features, mask, bands=2, widest=0.15)
    changed = masked != features
    assert changed.any(dim=(1, 2)).all()
    assert not changed[1, :, 120:].any()
    assert changed.float().mean() < 4 * 0.15  # two bands on each axis, each at most 15 %
    for clip, frames in enumerate((200, 120, 200)):
        values = masked[clip, :, :frames][changed[clip, :, :frames]]
        assert torch.allclose(values, features[clip, :, :frames].mean().expand_as(values), atol=1e-6)
