"""Samples into padded micro-batches of like length, within the budgets of the recipe."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.batch import PolicyBatch, packed_rows
from rlhf_platform.learner.clips import Clips, key_of
from rlhf_platform.learner.process_group import largest_over_ranks
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.recipe.schema import LearnerConfig
from rlhf_platform.types import Sample


@dataclass
class MicroBatch:
    """What one forward takes. (B, T) is rows and completion tokens."""

    rows: list[int]
    """Which of the samples these are."""
    batch: PolicyBatch
    audio: list[Tensor] | None
    """Encoder output of each clip, kept when the encoder is frozen."""
    mask: Tensor
    """(B, T): tokens that are learnt, of samples that count."""
    sampled: Tensor
    """(B, T): all tokens of samples that count."""
    advantages: Tensor
    """(B, T)"""
    behaviour: Tensor
    """(B, T): log-probs of the rollout engine."""
    old: Tensor | None
    """(B, T): log-probs before the step; those of the first forward when nothing has moved the policy by then."""
    reference: Tensor | None
    values: Tensor | None
    returns: Tensor | None

    def tokens(self) -> tuple[int, int]:
        """Decoder positions that hold something, and with padding all."""
        return int(self.batch.attention_mask.sum()), self.batch.attention_mask.numel()


Trained = Callable[[Tensor, Tensor], Tensor]
"""Completion ids and their mask (B, T) -> which tokens are learnt (B, T)."""


def packed(
    samples: Sequence[Sample], clips: Clips, config: LearnerConfig, unit: int = 1, ranks_alike: bool = True
) -> list[list[int]]:
    """Which samples share a forward: indices, clips of like length together, `unit` neighbours never parted.

    At most `micro_batch_size` samples, `micro_batch_tokens` positions and `micro_batch_seconds` of audio, padding
    included, where more than one unit stands in a forward. `ranks_alike`: as many forwards as the other ranks need,
    which at ZeRO 3 wait for each other in every one; they must have as many samples.
    """
    units = [range(start, start + unit) for start in range(0, len(samples), unit)]
    of_prompt: Counter[Hashable] = Counter()
    for sample in samples:
        of_prompt[key_of(sample.prompt)] += len(sample.tokens)

    def place(rows: range) -> tuple[float, int, str, int]:
        """Clips of like length together, then prompts whose packed rows are."""
        first = samples[rows[0]]
        prompt, size = first.prompt, clips.positions(first.prompt)
        return max(clips.seconds(prompt)), size + of_prompt[key_of(prompt)], prompt.id, len(first.tokens)

    units.sort(key=place)
    bins: list[list[int]] = []
    for rows in units:
        if bins and _fits([*bins[-1], *rows], samples, clips, config):
            bins[-1] += rows
        else:
            bins.append([*rows])
    wanted = largest_over_ranks(len(bins)) if ranks_alike else len(bins)
    while len(bins) < wanted:
        largest = max(bins, key=len)
        half = len(largest) // unit // 2 * unit
        bins.append(largest[half:])
        del largest[half:]
    return bins


def _fits(rows: Sequence[int], samples: Sequence[Sample], clips: Clips, config: LearnerConfig) -> bool:
    if len(rows) > config.micro_batch_size:
        return False
    part = [samples[row] for row in rows]
    prompts = {key_of(s.prompt): s.prompt for s in part}
    seconds = [of_clip for prompt in prompts.values() for of_clip in clips.seconds(prompt)]
    if config.micro_batch_seconds and len(seconds) * max(seconds) > config.micro_batch_seconds:
        return False
    return not config.micro_batch_tokens or _positions(part, clips, config.packing) <= config.micro_batch_tokens


def _positions(part: Sequence[Sample], clips: Clips, packing: bool) -> int:
    """That a forward of the samples takes, padding included."""
    prompts = {key_of(s.prompt): clips.positions(s.prompt) for s in part}
    index = {key: i for i, key in enumerate(prompts)}
    lengths = [len(s.tokens) for s in part]
    taken = list(prompts.values())
    of_sample = [index[key_of(s.prompt)] for s in part]
    rows = packed_rows(of_sample, taken, lengths, clips.most(packing))
    return len(rows) * max(taken[of_sample[row.start]] + sum(lengths[i] for i in row) for row in rows)


def micro_batches(
    samples: Sequence[TrainSample],
    bins: Sequence[Sequence[int]],
    clips: Clips,
    packing: bool,
    trained: Trained,
    device: torch.device,
) -> Iterator[MicroBatch]:
    """The samples of each bin, padded, on the device."""
    for rows in bins:
        part = [samples[row] for row in rows]
        batch, audio = clips.batch([s.sample for s in part], packing)
        columns: dict[str, Sequence[Any]] = {
            "advantages": [s.advantage for s in part],
            "behaviour": [s.sample.logprobs for s in part],
            "old": [s.seen and s.seen.logprobs for s in part],
            "reference": [s.seen and s.seen.reference for s in part],
            "values": [s.seen and s.seen.values for s in part],
            "returns": [s.returns for s in part],
        }
        lengths = [len(s.sample.tokens) for s in part]
        longest = batch.completion_ids.shape[1]
        padded: dict[str, Any] = {name: _padded(each, lengths, longest, device) for name, each in columns.items()}
        counts = torch.tensor([[float(s.counts)] for s in part], device=device)
        sampled = batch.completion_mask * counts
        mask = trained(batch.completion_ids, batch.completion_mask) * counts
        yield MicroBatch(rows=list(rows), batch=batch, audio=audio, mask=mask, sampled=sampled, **padded)


def _padded(values: Sequence[Any], lengths: Sequence[int], longest: int, device: torch.device) -> Tensor | None:
    """Numbers per token, (B, T), 0 beyond a sample's end; one number stands for all of them. None where any is None."""
    if any(value is None for value in values):
        return None
    found = np.zeros((len(values), longest), dtype=np.float32)
    for row, (value, length) in enumerate(zip(values, lengths, strict=True)):
        found[row, :length] = value
    return torch.from_numpy(found).to(device)
