"""From completions to sound: each once, and what has none is a failure that says why."""

from pathlib import Path

import numpy as np
import pytest

from policies.codec.decoder import SpeechDecoder
from policies.codec.interface import Codec
from policies.load import load_adapter
from policies.speaking import Speaking
from rlhf_platform.types import Sample, StopReason, Waveform
from tests.speaking import PROMPTS, write_speaking_checkpoint


class Ramps(Codec):
    """A codec whose frame is ten samples, each the sum of the frame's codes by 100."""

    name, sample_rate, frame_rate, codebooks = "ramps", 16_000, 1600.0, (8, 4, 4)

    def encode(self, samples: Waveform) -> np.ndarray:
        raise NotImplementedError

    def decode(self, codes: np.ndarray) -> Waveform:
        return np.repeat(codes.sum(1) / 100, 10).astype(np.float32)


@pytest.fixture
def decoder(tiny_checkpoint: Path, tmp_path: Path) -> SpeechDecoder:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "c")
    adapter = load_adapter("qwen3_asr", tmp_path / "c")
    assert isinstance(adapter, Speaking)
    return SpeechDecoder(adapter, Ramps())


def sample(
    decoder: SpeechDecoder, indices: list[int], stop: StopReason = StopReason.EOS, more: tuple[int, ...] = ()
) -> Sample:
    codes = [token for codebook in decoder._adapter.rule.codebooks for token in codebook]
    end = decoder._adapter.end_token_ids[-1:] if stop is StopReason.EOS else ()
    tokens = (*(codes[index] for index in indices), *more, *end)
    return Sample(PROMPTS[0], tokens, (0.0,) * len(tokens), "", stop, 0)


def test_each_has_its_place_in_one_buffer(decoder: SpeechDecoder) -> None:
    sounds = decoder.decode([sample(decoder, [1, 8, 12]), sample(decoder, [2, 9, 13, 0, 8, 12])])
    assert [len(sounds), sounds.failures, len(sounds.buffer)] == [2, {}, 30]
    first, second = sounds.wave(0), sounds.wave(1)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first, 0.01)
    np.testing.assert_allclose(second, [0.04] * 10 + [0.0] * 10)
    assert first.base is sounds.buffer


def test_a_completion_is_decoded_once(decoder: SpeechDecoder) -> None:
    same = [sample(decoder, [1, 8, 12]), sample(decoder, [1, 8, 12]), sample(decoder, [2, 8, 12])]
    decoder.decode(same)
    decoder.decode(same)
    assert (decoder.decoded, decoder.remembered) == (2, 4)


def test_what_cannot_be_decoded_says_why(decoder: SpeechDecoder) -> None:
    said = decoder.decode(
        [
            sample(decoder, []),
            sample(decoder, [8, 1, 12]),
            sample(decoder, [1, 8]),
            sample(decoder, [1, 8, 12], more=(5,)),
            sample(decoder, [1, 8, 12]),
        ]
    ).failures
    assert list(said) == [0, 1, 2, 3]
    for number, why in enumerate(("nothing to decode", "turn of codebook 0", "2 of 3", "token 3 is 5, no codec token")):
        assert why in said[number]


def test_a_frame_that_was_cut_is_left_out(decoder: SpeechDecoder) -> None:
    sounds = decoder.decode([sample(decoder, [1, 8, 12, 3], StopReason.LENGTH)])
    assert (len(sounds.buffer), sounds.failures) == (10, {})
