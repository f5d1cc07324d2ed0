"""How good is the embedded codec? decode(encode(x)) against x on speech that it was not trained on.

    python benchmarks/codec.py          40 clips of each set, a few minutes on a core
    python benchmarks/codec.py --quick  4 clips of each set: the same keys, no meaning

Sets: held-out clips of the recorded set, and held-out texts of the same set spoken by the voice of the demo. `world` is
the vocoder without quantisation: what the codec could reach at best. Naturalness is DistillMOS's guess, WER is that of
Whisper tiny.en.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import distillmos
import numpy as np
import numpy.typing as npt
import parselmouth
import pyworld
import torch
from results import write_results
from scipy.fft import dct
from transformers import WhisperFeatureExtractor, WhisperTokenizer

from policies.codec.features import analyse, synthesise
from policies.codec.interface import Codec
from policies.codec.load import load_codec
from policies.pretrained import whisper_tiny_en
from rewards.asr.errors import word_errors
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.data.manifest import of_split, read_manifest
from rlhf_platform.data.prompts import build_prompts
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.evaluation.wer import total
from rlhf_platform.types import Waveform

CLIPS = 40
SHORTEST, LONGEST = 1.5, 12.0  # seconds; a word on its own says little of WER or naturalness
WINDOW = 15  # seconds that Whisper hears
FRAME = 0.005  # seconds
LOWEST_F0, HIGHEST_F0 = 75.0, 600.0
FFT = 512
POINTS = 128  # of the mel axis
ORDER = 24
QUIET = 40.0  # decibels under the clip's loudest frame; below that, distortion is not heard


def speech_sets(clips: int, scratch: Path) -> dict[str, list[tuple[str, Waveform]]]:
    """Text and samples of an even spread of held-out clips."""
    rows = of_split(read_manifest(build_prompts(scratch / "recorded")), "heldout")
    rows = [r for r in rows if r.metadata["group"] == "clean" and SHORTEST <= r.duration <= LONGEST]
    rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, clips)]
    voice = Voice("hibari", rate=1.0)
    return {
        "recorded": [(row.text, load_audio(row.audio)) for row in rows],
        "hibari": [(row.text, speak(voice, row.text, SAMPLE_RATE, seed)) for seed, row in enumerate(rows)],
    }


class Judge:
    """Naturalness and intelligibility."""

    def __init__(self) -> None:
        self.naturalness = distillmos.ConvTransformerSQAModel().eval()
        folder = whisper_tiny_en.WEIGHTS.locate().parent
        self.whisper = ctranslate2.models.Whisper(str(folder), intra_threads=1)
        self.features = WhisperFeatureExtractor(chunk_length=WINDOW)
        self.tokenizer = WhisperTokenizer.from_pretrained(str(folder))

    def mos(self, clips: Sequence[Waveform]) -> float:
        with torch.inference_mode():
            return float(np.mean([float(self.naturalness(torch.from_numpy(clip[None]))) for clip in clips]))

    def wer(self, texts: Sequence[str], clips: Sequence[Waveform]) -> float:
        said = [self._heard(clip) for clip in clips]
        return total(word_errors(text, s, "en", "whisper-1") for text, s in zip(texts, said, strict=True)).wer

    def _heard(self, clip: Waveform) -> str:
        mel = self.features(clip, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features
        prompt = [[whisper_tiny_en.START, whisper_tiny_en.NO_TIMESTAMPS]]
        (found,) = self.whisper.generate(ctranslate2.StorageView.from_array(mel), prompt, beam_size=1)
        return self.tokenizer.decode(found.sequences_ids[0], skip_special_tokens=True)


def pitch_and_cepstra(clip: Waveform) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """F0 (F,) in Hz by Praat, 0 where unvoiced, and mel-cepstra (F, ORDER + 1)."""
    samples = clip.astype(np.float64)
    pitch = parselmouth.Sound(samples, SAMPLE_RATE).to_pitch(FRAME, LOWEST_F0, HIGHEST_F0)
    f0, times = np.ascontiguousarray(pitch.selected_array["frequency"]), pitch.xs()
    power = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE, fft_size=FFT)
    mel = np.linspace(0, np.log1p(SAMPLE_RATE / 2 / 700), POINTS)
    bins = 700 * np.expm1(mel) * FFT / SAMPLE_RATE
    log_amplitude = np.stack([np.interp(bins, np.arange(FFT // 2 + 1), np.log(row) / 2) for row in power])
    # log |H| = c_0 + 2 sum c_k cos: the cepstra that the formula of the distortion is for.
    return f0, dct(log_amplitude, axis=1)[:, : ORDER + 1] / (2 * POINTS)


def _fit(clip: Waveform, length: int) -> Waveform:
    return np.pad(clip[:length], (0, max(0, length - len(clip))))


def distances(original: Sequence[Waveform], coded: Sequence[Waveform]) -> dict[str, float]:
    """Mel-cepstral distortion in dB (Kubichek 1993) and errors of F0, voicing and loudness, where it is not silent."""
    cepstra, loudness, semitones, voicing = [], [], [], []
    for before, after in zip(original, coded, strict=True):
        f0_a, c_a = pitch_and_cepstra(before)
        f0_b, c_b = pitch_and_cepstra(_fit(after, len(before)))
        decibels = 20 / np.log(10) * c_a[:, 0]
        heard = decibels > decibels.max() - QUIET
        cepstra.append(10 / np.log(10) * np.sqrt(2 * np.square(c_a - c_b)[heard, 1:].sum(1)))
        loudness.append(20 / np.log(10) * (c_b - c_a)[heard, 0])
        voicing.append(((f0_a > 0) != (f0_b > 0))[heard])
        both = (f0_a > 0) & (f0_b > 0) & heard
        semitones.append(12 * np.log2(f0_b[both] / f0_a[both]))
    return {
        "mel_cepstral_distortion_db": round(float(np.concatenate(cepstra).mean()), 2),
        "loudness_rmse_db": round(float(np.sqrt(np.square(np.concatenate(loudness)).mean())), 2),
        "f0_rmse_semitones": round(float(np.sqrt(np.square(np.concatenate(semitones)).mean())), 2),
        "f0_median_error_semitones": round(float(np.median(np.abs(np.concatenate(semitones)))), 2),
        "voicing_error": round(float(np.concatenate(voicing).mean()), 4),
    }


def speed(codec: Codec, clips: Sequence[Waveform]) -> dict[str, float]:
    """Seconds of work per second of speech."""
    seconds = sum(len(clip) for clip in clips) / SAMPLE_RATE
    start = time.perf_counter()
    tokens = [codec.tokens_of(clip) for clip in clips]
    middle = time.perf_counter()
    for indices in tokens:
        codec.speech_of(indices)
    end = time.perf_counter()
    return {
        "encode_real_time_factor": round((middle - start) / seconds, 4),
        "decode_real_time_factor": round((end - middle) / seconds, 4),
    }


def measure(codec: Codec, judge: Judge, speech: Sequence[tuple[str, Waveform]]) -> dict[str, Any]:
    texts, clips = [text for text, _ in speech], [clip for _, clip in speech]
    systems = {
        "original": clips,
        "world": [synthesise(analyse(clip)) for clip in clips],
        "codec": [codec.speech_of(codec.tokens_of(clip)) for clip in clips],
    }
    return {
        name: {"mos": round(judge.mos(found), 2), "wer": round(judge.wer(texts, found), 4)}
        | ({} if name == "original" else distances(clips, found))
        for name, found in systems.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"4 clips instead of {CLIPS}")
    quick: bool = parser.parse_args().quick
    torch.set_num_threads(1)
    codec, judge = load_codec("world"), Judge()
    with tempfile.TemporaryDirectory() as folder:
        sets = speech_sets(4 if quick else CLIPS, Path(folder))
    figures: dict[str, Any] = {
        "codebooks": codec.codebooks,
        "tokens_per_second": codec.frame_rate * len(codec.codebooks),
        "bits_per_second": round(codec.frame_rate * float(np.log2(codec.codebooks).sum())),
        **{name: measure(codec, judge, speech) for name, speech in sets.items()},
        **speed(codec, [clip for speech in sets.values() for _, clip in speech]),
    }
    print(json.dumps(figures, indent=1))
    print("written to", write_results("codec", figures, quick))


if __name__ == "__main__":
    main()
