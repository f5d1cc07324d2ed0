"""The codec workers of a run, called as one: tokens to sound, once for all rewards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from policies.speaking import SpeechLayout
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.cluster import Placement
from rlhf_platform.train.spread import mean
from rlhf_platform.train.waiting import wait
from rlhf_platform.train.workers import Workers
from rlhf_platform.types import Sample, Sounds, StopReason, Waveform
from rollout.codec_worker import CodecWorker


class Voice(Workers):
    """Shares of samples are dealt out among the workers; what they sound like stays in the object store."""

    def __init__(self, recipe: Recipe, placement: Placement, bundles: Iterator[int], model: Path | str) -> None:
        speech = recipe.speech
        options = [placement.options(next(bundles), speech.cpus) for _ in range(speech.workers)]
        layout = SpeechLayout.read(model)
        assert layout is not None, "train.preparing.speech has written it"
        self._layout = layout
        super().__init__(CodecWorker, "the codec workers", recipe.cluster, options, (recipe, str(model)))

    def ready(self) -> None:
        self._all("start", "load the codec", timeout=self._timeouts.start_timeout)

    def decode(self, shares: Sequence[Sequence[Sample]]) -> tuple[list[Any], dict[str, float]]:
        """A Ray reference to the `Sounds` of each share, and what that took."""
        started = perf_counter()
        asked = [
            self._actors[number % len(self._actors)].decode.remote(list(share)) for number, share in enumerate(shares)
        ]
        work: dict[str, float] = {}
        for took in wait([took for _, took in asked], self._name, "decode speech", self._timeouts.step_timeout):
            work = {name: work.get(name, 0.0) + value for name, value in took.items()}
        work["seconds/codec"] = perf_counter() - started
        work |= self._by_codebook([sample for share in shares for sample in share])
        return [sounds for sounds, _ in asked], work

    def _by_codebook(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Mean behaviour log-prob of the tokens of each codebook, nats: the one that a policy is least sure of."""
        places = len(self._layout.codebooks)
        by_place: list[list[float]] = [[] for _ in range(places)]
        for sample in samples:
            spoken = len(sample.tokens) - (sample.stop_reason is StopReason.EOS)
            for place, found in enumerate(by_place):
                found += sample.logprobs[place:spoken:places]
        return {f"codebook_logprob/{place}": mean(found) for place, found in enumerate(by_place)}

    def sounds(self, shares: Sequence[Sequence[Sample]]) -> Sounds:
        """What all samples of the shares sound like, in order, here."""
        references, _ = self.decode(shares)
        return joined(wait(references, self._name, "hand over speech", self._timeouts.step_timeout))


def joined(parts: Sequence[Sounds]) -> Sounds:
    """The parts in a row."""
    waves: list[Waveform | str] = []
    for part in parts:
        for number in range(len(part)):
            wave = part.wave(number)
            waves.append(part.failures[number] if wave is None else wave)
    return Sounds.of(waves)
