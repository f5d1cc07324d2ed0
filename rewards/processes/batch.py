"""Samples on their way to a reward function, as columns: a fraction of what objects cost to send."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rewards.types import RewardInput
from rlhf_platform.types import Sample, Sounds, StopReason, Waveform

_STOPS = {stop.value: stop for stop in StopReason}


@dataclass(frozen=True)
class InputBatch:
    """What rewards see of N samples. All columns have N entries but `shared`, which holds what samples share once."""

    shared: Sequence[RewardInput]
    """One for each prompt; the fields of a completion in it do not count."""
    shared_of: Sequence[int]
    texts: Sequence[str]
    tokens: Sequence[tuple[int, ...]]
    logprobs: Sequence[tuple[float, ...]]
    stops: Sequence[str]
    speech: Sequence[Waveform | None] | None = None
    """None where no sample has any."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "InputBatch":
        """The rewards' view of rollout samples, without what they sound like."""
        numbers: dict[int, int] = {}
        shared: list[RewardInput] = []
        for sample in samples:
            if numbers.setdefault(id(sample.prompt), len(shared)) == len(shared):
                shared.append(RewardInput.of(sample.prompt, text=""))
        return cls(
            shared,
            [numbers[id(sample.prompt)] for sample in samples],
            [sample.text for sample in samples],
            [sample.tokens for sample in samples],
            [sample.logprobs for sample in samples],
            [sample.stop_reason.value for sample in samples],
        )

    @classmethod
    def of_inputs(cls, inputs: Sequence[RewardInput]) -> "InputBatch":
        """The same for records that were made by hand."""
        return cls(
            inputs,
            range(len(inputs)),
            [each.text for each in inputs],
            [each.tokens for each in inputs],
            [each.logprobs for each in inputs],
            [each.stop_reason.value for each in inputs],
            [each.speech for each in inputs] if any(each.speech is not None for each in inputs) else None,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> "InputBatch":
        """Some of the samples. `indices`: rising, each once."""
        needed = sorted({self.shared_of[i] for i in indices})
        numbers = {number: place for place, number in enumerate(needed)}
        return InputBatch(
            [self.shared[number] for number in needed],
            [numbers[self.shared_of[i]] for i in indices],
            [self.texts[i] for i in indices],
            [self.tokens[i] for i in indices],
            [self.logprobs[i] for i in indices],
            [self.stops[i] for i in indices],
            None if self.speech is None else [self.speech[i] for i in indices],
        )

    def keys(self) -> list[tuple[object, ...]]:
        """What tells samples apart for a function that does not ask how likely they were."""
        prompts = [self.shared[number].prompt_id for number in self.shared_of]
        return list(zip(prompts, self.texts, self.tokens, self.stops, strict=True))

    def inputs(self) -> list[RewardInput]:
        """One record for each sample, for a function to see."""
        shared = [vars(prompt) for prompt in self.shared]
        speech = self.speech or [None] * len(self)
        columns = zip(self.shared_of, self.texts, self.tokens, self.logprobs, self.stops, speech, strict=True)
        return [
            _made(
                shared[number],
                {"text": text, "tokens": tokens, "logprobs": logprobs, "stop_reason": _STOPS[stop], "speech": wave},
            )
            for number, text, tokens, logprobs, stop, wave in columns
        ]


@dataclass(frozen=True)
class PackedBatch:
    """A batch as bytes: who passes it on does not have to read it."""

    data: bytes
    samples: int

    @classmethod
    def of(cls, batch: InputBatch) -> "PackedBatch":
        return cls(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL), len(batch))

    @cached_property
    def unpacked(self) -> InputBatch:
        """The batch, in a process that trusts who packed it."""
        batch: InputBatch = pickle.loads(self.data)
        return batch

    def heard(self, sounds: Sounds, indices: Sequence[int]) -> "PackedBatch":
        """The samples `indices`, rising, with what they sound like."""
        waves = [sounds.wave(number) for number in indices]
        return PackedBatch.of(replace(self.unpacked.take(indices), speech=waves))

    def take(self, indices: Sequence[int]) -> "PackedBatch":
        """Some of the samples. `indices`: rising, each once."""
        return self if len(indices) == self.samples else PackedBatch.of(self.unpacked.take(indices))


def _made(shared: dict[str, Any], own: dict[str, Any]) -> RewardInput:
    """A record, without the `__init__` of a frozen class, which takes several times as long."""
    record = object.__new__(RewardInput)
    record.__dict__.update(shared)
    record.__dict__.update(own)
    return record
