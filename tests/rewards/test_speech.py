"""Speech on its way to rewards: one buffer, a view for each, and what has no sound is a failure of every term."""

import json
from pathlib import Path

import numpy as np

from rewards.plugin import terms_of
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.remote import wire
from rewards.score import Scorer
from rewards.types import RewardInput
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Failed, Prompt, Sample, Sounds, StopReason

WAVES = [np.full(3, 0.25, np.float32), "no tokens", np.arange(4, dtype=np.float32) / 8, np.zeros(0, np.float32)]
MINE = "def loudest(sample):\n    return float(abs(sample.speech).max(initial=-1.0))\n"


def samples() -> list[Sample]:
    prompt = Prompt("p", "", "hello", "en")
    return [Sample(prompt, (n,), (-1.0,), "", StopReason.EOS, 0) for n in range(len(WAVES))]


def test_each_sample_has_a_view_of_the_buffer() -> None:
    sounds = Sounds.of(WAVES)
    assert (len(sounds), len(sounds.buffer), sounds.failures) == (4, 7, {1: "no tokens"})
    for number, wave in enumerate(WAVES):
        found = sounds.wave(number)
        if isinstance(wave, str):
            assert found is None
        else:
            assert found is not None
            np.testing.assert_array_equal(found, wave)
            assert np.shares_memory(found, sounds.buffer) or not len(wave)


def test_what_cannot_be_decoded_fails_every_term_and_is_asked_of_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    terms = [RewardConfig(fn="mine.py:loudest", name=name) for name in ("a", "b")]
    with Scorer(terms_of(terms, tmp_path)) as scorer:
        found = scorer.score(PackedBatch.of(InputBatch.of(samples())), 60.0, Sounds.of(WAVES))
    failed = Failed("undecodable", "no tokens", "speech")
    assert found.by_term == [[0.25, failed, 0.375, -1.0]] * 2


def test_speech_crosses_the_wire_to_the_bit() -> None:
    wave = np.random.default_rng(0).normal(size=100).astype(np.float32)
    body = wire.write_request({}, [wire.write_sample(RewardInput("p", "", speech=wave))], {})
    (read,) = wire.read_request(body).samples
    assert read.speech is not None
    np.testing.assert_array_equal(read.speech, wave)
    assert "speech" not in json.loads(wire.write_sample(RewardInput("p", "t")))
