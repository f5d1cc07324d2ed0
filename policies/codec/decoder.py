"""From what a policy wrote to what it sounds like, each completion once."""

from collections import OrderedDict
from collections.abc import Sequence

from policies.codec.interface import Codec, CodecError
from policies.speaking import Speaking
from rlhf_platform.types import Sample, Sounds, StopReason, Waveform

KEPT = 4096
"""Completions whose sound is remembered, the latest used: one that is asked for twice is decoded once."""


class SpeechDecoder:
    """Decodes completions of a policy that speaks."""

    def __init__(self, adapter: Speaking, codec: Codec) -> None:
        self._adapter, self._codec = adapter, codec
        self._kept: OrderedDict[tuple[int, ...], Waveform | str] = OrderedDict()
        self.decoded = self.remembered = 0

    def decode(self, samples: Sequence[Sample]) -> Sounds:
        """What each sounds like, or why it has no sound: no tokens, or tokens that are none of the codec's.

        Of one that was cut within a frame the frame is left out.
        """
        return Sounds.of([self._sound(sample) for sample in samples])

    def _sound(self, sample: Sample) -> Waveform | str:
        found = self._kept.get(sample.tokens)
        if found is None:
            found = self._decoded(sample)
            self.decoded += 1
        else:
            self.remembered += 1
        self._kept[sample.tokens] = found
        self._kept.move_to_end(sample.tokens)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _decoded(self, sample: Sample) -> Waveform | str:
        try:
            indices = self._adapter.codec_indices(sample.tokens)
            if sample.stop_reason is StopReason.LENGTH:
                indices = indices[: len(indices) - len(indices) % len(self._codec.codebooks)]
            return self._codec.speech_of(indices)
        except CodecError as error:
            return str(error)
