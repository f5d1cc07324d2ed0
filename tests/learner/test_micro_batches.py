"""Which samples share a forward, and what they look like there."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.learner import micro_batches as module
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.micro_batches import MicroBatch, micro_batches, packed
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.recipe.schema import LearnerConfig
from rlhf_platform.types import Prompt, Sample, StopReason

FRAMES = 10
"""Decoder positions per second of audio, beside 5 of the prompt's text."""


class Positions:
    """All that `packed` asks of the clips, of a layout that shares no rows."""

    def positions(self, prompt: Prompt) -> int:
        return 5 + round(FRAMES * prompt.duration)

    def seconds(self, prompt: Prompt) -> list[float]:
        return [prompt.duration]

    def most(self, packed: bool) -> int:
        return 0


CLIPS: Any = Positions()


def sample(seconds: float, tokens: int, prompt: str) -> Sample:
    return Sample(Prompt(prompt, "", "", "en", duration=seconds), (1,) * tokens, (0.0,) * tokens, "", StopReason.EOS, 0)


def length(one: Sample) -> int:
    return CLIPS.positions(one.prompt) + len(one.tokens)


SECONDS = st.floats(0.1, 30.0)
# Of each prompt its seconds, and the lengths of its samples, an even number of them.
PROMPTS = st.lists(
    st.tuples(SECONDS, st.lists(st.integers(0, 60), min_size=2, max_size=6).filter(lambda x: len(x) % 2 == 0)),
    min_size=1,
    max_size=8,
)
CONFIGS = st.builds(
    LearnerConfig,
    micro_batch_size=st.integers(1, 12),
    micro_batch_tokens=st.none() | st.integers(64, 2000),
    micro_batch_seconds=st.none() | st.floats(0.5, 90.0),
)
Prompts = list[tuple[float, list[int]]]


def samples_of(prompts: Prompts) -> list[Sample]:
    return [sample(seconds, tokens, f"p{i}") for i, (seconds, lengths) in enumerate(prompts) for tokens in lengths]


def cost(rows: list[int], samples: list[Sample]) -> tuple[int, int, float]:
    """Samples, decoder positions and seconds of audio of a forward, padding included; a clip is encoded once."""
    clips = {samples[row].prompt.id: samples[row].prompt.duration for row in rows}
    return len(rows), len(rows) * max(length(samples[row]) for row in rows), len(clips) * max(clips.values())


@given(PROMPTS, CONFIGS, st.sampled_from([1, 2]))
def test_no_budget_is_exceeded_but_by_what_stands_alone(prompts: Prompts, config: LearnerConfig, unit: int) -> None:
    samples = samples_of(prompts)
    bins = packed(samples, CLIPS, config, unit, ranks_alike=False)
    bounds = (config.micro_batch_size, config.micro_batch_tokens, config.micro_batch_seconds)
    for rows in bins:
        if len(rows) > unit:
            pairs = zip(cost(rows, samples), bounds, strict=True)
            assert all(bound is None or spent <= bound for spent, bound in pairs), rows


@given(PROMPTS, CONFIGS, st.sampled_from([1, 2]), st.integers(0, 50))
def test_every_sample_is_in_one_forward_and_no_pair_is_parted(
    prompts: Prompts, config: LearnerConfig, unit: int, more: int
) -> None:
    """Also where another rank needs more forwards."""
    samples = samples_of(prompts)
    alone = packed(samples, CLIPS, config, unit, ranks_alike=False)
    # A rank with as many samples needs at most one for each unit.
    wanted = min(len(alone) + more, len(samples) // unit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "largest_over_ranks", lambda number: max(number, wanted))
        bins = packed(samples, CLIPS, config, unit)
    assert len(bins) == wanted
    assert sorted(row for rows in bins for row in rows) == list(range(len(samples)))
    assert all(rows[i + 1] == rows[i] + 1 for rows in bins for i in range(0, len(rows), unit) if unit == 2)
    assert all(len(rows) % unit == 0 and rows[i] % unit == 0 for rows in bins for i in range(0, len(rows), unit))


@given(PROMPTS, CONFIGS)
def test_clips_of_like_length_are_together_and_samples_of_a_clip_follow_each_other(
    prompts: Prompts, config: LearnerConfig
) -> None:
    samples = samples_of(prompts)
    order = [row for rows in packed(samples, CLIPS, config, ranks_alike=False) for row in rows]
    durations = [samples[row].prompt.duration for row in order]
    assert durations == sorted(durations)
    changes = sum(samples[a].prompt.id != samples[b].prompt.id for a, b in pairwise(order))
    assert changes == len(prompts) - 1


def test_a_clip_of_2_s_does_not_pay_for_one_of_30() -> None:
    samples = [sample(30.0 if i % 2 else 2.0, 20, f"p{i}") for i in range(8)]
    config = LearnerConfig(micro_batch_size=2)
    bins = packed(samples, CLIPS, config, ranks_alike=False)

    def seconds(forwards: list[list[int]]) -> float:
        return sum(cost(rows, samples)[2] for rows in forwards)

    # By arrival each forward is 2 x 30 s; together they hold 4 x 2 + 4 x 30.
    assert seconds([[0, 1], [2, 3], [4, 5], [6, 7]]) == 240
    assert seconds(bins) == 128
    assert sorted(map(sorted, bins)) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    positions = sum(cost(rows, samples)[1] for rows in bins)
    assert positions == sum(map(length, samples))


def test_a_budget_takes_more_short_samples_at_a_time_than_long_ones() -> None:
    samples = [sample(30.0 if i < 4 else 2.0, 15, f"p{i}") for i in range(20)]
    bins = packed(samples, CLIPS, LearnerConfig(micro_batch_tokens=640), ranks_alike=False)
    # A short one takes 40 positions, a long one 320.
    assert [len(rows) for rows in bins] == [16, 2, 2]
    by_audio = packed(samples, CLIPS, LearnerConfig(micro_batch_seconds=60.0), ranks_alike=False)
    assert [len(rows) for rows in by_audio] == [16, 2, 2]


def test_samples_of_one_clip_pay_for_its_audio_once() -> None:
    samples = [sample(10.0, 3, "p0") for _ in range(8)]
    config = LearnerConfig(micro_batch_seconds=10.0, micro_batch_size=8)
    assert packed(samples, CLIPS, config, ranks_alike=False) == [[*range(8)]]


@pytest.fixture
def real(tiny_checkpoint: Path) -> Clips:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    policy = Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    return Clips(adapter, policy, encode_once=True)


def made(samples: list[TrainSample], clips: Clips) -> MicroBatch:
    def odd(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask * (tokens % 2)

    (micro,) = micro_batches(samples, [[*range(len(samples))][::-1]], clips, False, odd, torch.device("cpu"))
    return micro


def test_a_forward_holds_what_is_known_of_each_token(real: Clips, clips: list[Prompt]) -> None:
    first = Sample(clips[0], (41, 42, 43), (-0.5, -1.0, -1.5), "", StopReason.EOS, 0)
    second = Sample(clips[1], (45,), (-2.0,), "", StopReason.EOS, 0)
    floats = np.asarray([0.1, 0.2, 0.3], np.float32)
    seen = Seen(np.ones(3, bool), logprobs=-floats, reference=-2 * floats, values=3 * floats)
    one = Seen(np.ones(1, bool), logprobs=-floats[:1], reference=-2 * floats[:1], values=3 * floats[:1])
    micro = made(
        [TrainSample(first, floats, True, seen, 4 * floats), TrainSample(second, 7.0, True, one, floats[:1])], real
    )
    assert micro.rows == [1, 0]

    def rows(tensor: torch.Tensor | None) -> np.ndarray:
        assert tensor is not None
        return tensor.numpy()

    np.testing.assert_array_equal(rows(micro.batch.completion_ids[:, :1]), [[45], [41]])
    np.testing.assert_array_equal(rows(micro.sampled), [[1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(rows(micro.mask), [[1, 0, 0], [1, 0, 1]])
    np.testing.assert_allclose(rows(micro.advantages), [[7, 0, 0], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(rows(micro.behaviour), [[-2, 0, 0], [-0.5, -1, -1.5]])
    np.testing.assert_allclose(rows(micro.old), [[-0.1, 0, 0], [-0.1, -0.2, -0.3]])
    np.testing.assert_allclose(rows(micro.reference), [[-0.2, 0, 0], [-0.2, -0.4, -0.6]], rtol=1e-6)
    np.testing.assert_allclose(rows(micro.values), [[0.3, 0, 0], [0.3, 0.6, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(rows(micro.returns), [[0.1, 0, 0], [0.4, 0.8, 1.2]], rtol=1e-6)


@pytest.mark.parametrize("packing", [False, True])
def test_a_budget_of_positions_is_what_the_forward_takes(packing: bool, real: Clips, clips: list[Prompt]) -> None:
    samples = [
        Sample(clip, (41,) * tokens, (-1.0,) * tokens, "", StopReason.EOS, 0)
        for clip in clips
        for tokens in (3, 1, 9, 4)
    ]
    config = LearnerConfig(micro_batch_tokens=170, packing=packing)
    bins = packed(samples, real, config, ranks_alike=False)
    given = [TrainSample(s, 0.0, True) for s in samples]
    made = list(micro_batches(given, bins, real, packing, lambda _, mask: mask, torch.device("cpu")))
    assert max(micro.tokens()[1] for micro in made) <= 170
    assert sorted(row for micro in made for row in micro.rows) == [*range(16)]
    # Without packing the prompt, most of the positions, stands in each of the four rows of its samples.
    assert (len(bins) > 4) == (not packing)


def test_one_advantage_stands_at_every_token_and_what_does_not_count_is_in_no_mask(
    real: Clips, clips: list[Prompt]
) -> None:
    two = [Sample(clips[i], (41, 43), (-0.5, -1.0), "", StopReason.EOS, 0) for i in range(2)]
    micro = made([TrainSample(two[0], 2.0, False), TrainSample(two[1], -3.0, True)], real)
    assert micro.advantages.tolist() == [[-3.0, -3.0], [2.0, 2.0]]
    assert micro.mask.tolist() == micro.sampled.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert (micro.old, micro.reference, micro.values, micro.returns) == (None,) * 4
    held, places = micro.tokens()
    sizes = [real.positions(clip) + 2 for clip in clips[:2]]
    assert (held, places) == (sum(sizes), 2 * max(sizes))
