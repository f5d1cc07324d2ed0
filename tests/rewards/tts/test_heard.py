"""What is said, by whom and how well: rewards against the libraries called by hand."""

from math import exp
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile as sf
from whisper_normalizer.english import EnglishTextNormalizer

from rewards.tts import mos, phonemes, similarity, whisper_cer
from rewards.types import RewardInput
from tests.rewards.scorers.speaking import HISS, SILENCE, TEXTS, another_voice, noisy, scrambled, spoken
from tests.rewards.scorers.test_scorers import by_ctranslate2, by_distillmos, by_hama, by_resemblyzer

TEXT = TEXTS[0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("voice") / "reference.wav"
    sf.write(path, spoken(TEXTS[1]), 16_000, subtype="FLOAT")
    return str(path)


def sample(speech: np.ndarray | None, text: str = TEXT, audio: str = "", **metadata: object) -> RewardInput:
    return RewardInput("p", "", reference=text, audio=audio, speech=speech, metadata=metadata)


@pytest.mark.parametrize("damage", [lambda x: x, scrambled, lambda x: x[: len(x) // 2]])
def test_phonemes_are_hamas_error_and_its_exponential(damage: object) -> None:
    speech = damage(spoken(TEXT))
    expected = by_hama(speech, TEXT)
    assert phonemes(sample(speech)) == pytest.approx({"per": expected, "reward": exp(-2.5 * expected)}, abs=1e-6)


def test_cer_is_jiwers_of_what_ctranslate2_hears() -> None:
    spoken_samples = [spoken(TEXT), noisy(spoken(TEXTS[1]), 0), spoken(TEXTS[2])]
    answers = whisper_cer([sample(speech) for speech in spoken_samples])
    for speech, answer in zip(spoken_samples, answers, strict=True):
        heard = EnglishTextNormalizer()(by_ctranslate2(speech))
        assert answer["cer"] == pytest.approx(jiwer.cer(TEXT, heard), abs=1e-6)
    assert answers[0] == {"cer": 0.0, "exact": 1.0}
    assert answers[2]["exact"] == 0.0


def test_cer_takes_a_number_in_either_form() -> None:
    text = "alpha seven bravo nine"
    assert by_ctranslate2(spoken(text)) == "Alpha 7 Bravo 9."
    assert whisper_cer([sample(spoken(text), text)])[0]["cer"] == 0.0
    assert whisper_cer([sample(spoken(text), text)], normalizer="plain-1")[0]["cer"] == pytest.approx(
        jiwer.cer(text, "alpha 7 bravo 9"), abs=1e-6
    )


def test_mos_is_distillmos_and_its_share_of_the_scale() -> None:
    speech = noisy(spoken(TEXT), 10)
    expected = by_distillmos(speech)
    assert mos(sample(speech)) == pytest.approx({"mos": expected, "reward": (expected - 1) / 4}, abs=1e-6)


def test_similarity_is_to_the_prompts_recording_or_to_the_reference_voice(recording: str, tmp_path: Path) -> None:
    expected = by_resemblyzer(spoken(TEXT), spoken(TEXTS[1]))
    answer = {"cosine": expected, "reward": (1 + expected) / 2}
    assert similarity(sample(spoken(TEXT), audio=recording)) == pytest.approx(answer, abs=1e-6)
    other = tmp_path / "other.wav"
    sf.write(other, another_voice(TEXT), 16_000, subtype="FLOAT")
    apart = similarity(sample(spoken(TEXT), audio=recording, reference_voice=str(other)))["cosine"]
    assert apart == pytest.approx(by_resemblyzer(spoken(TEXT), another_voice(TEXT)), abs=1e-6)
    with pytest.raises(ValueError, match="prompt 'p' has no recording"):
        similarity(sample(spoken(TEXT)))


@pytest.mark.parametrize("nothing", [SILENCE, HISS])
def test_silence_is_wrong_and_has_neither_quality_nor_voice(nothing: np.ndarray, recording: str) -> None:
    assert phonemes(sample(nothing)) == pytest.approx({"per": 1.0, "reward": exp(-2.5)})
    assert whisper_cer([sample(nothing)]) == [{"cer": 1.0, "exact": 0.0}]
    for reward in (mos, similarity):
        with pytest.raises(ValueError, match="the sound of 'p' is silent"):
            reward(sample(nothing, audio=recording))


def test_a_sample_without_sound_is_no_answer(recording: str) -> None:
    for reward in (phonemes, mos, similarity, lambda one: whisper_cer([one])):
        with pytest.raises(ValueError, match="sample of 'p' has no sound: this reward needs speech"):
            reward(sample(None, audio=recording))
