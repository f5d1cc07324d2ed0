"""A tiny backbone and short clips for tests that need a real model and real audio files."""

from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from policies.qwen3_asr import Qwen3ASRAdapter
from policies.tiny import build_tiny
from rlhf_platform.recipe.backbone import TinyBackbone
from rlhf_platform.types import Prompt

SPEC = TinyBackbone(
    hidden_size=64,
    decoder_layers=2,
    encoder_layers=1,
    attention_heads=2,
    key_value_heads=1,
    conv_channels=8,
    text_pieces=300,
    audio_slots=16,
)
WINDOW = 4.0
TEXTS = ("alpha", "bravo seven", "charlie nine two", "delta delta echo four")
SECONDS = (0.4, 0.8, 1.3, 2.9)


def write_checkpoint(path: Path, seed: int = 0) -> None:
    """Biases and norms are moved off the 0 and 1 they start from: at those values a forward pass cannot tell whether
    they were loaded, sent to the rollout engine or applied to padding."""
    build_tiny(SPEC, TEXTS, WINDOW, path)
    adapter = Qwen3ASRAdapter(path)
    model = adapter.load_model(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    adapter.save(model, path)


def write_clips(folder: Path) -> list[Prompt]:
    """One prompt per entry of SECONDS: low-passed noise, loud and soft four times a second as syllables are."""
    prompts = []
    for number, (seconds, text) in enumerate(zip(SECONDS, TEXTS, strict=True)):
        rng = np.random.default_rng(number)
        time = np.arange(int(seconds * 16_000)) / 16_000
        noise = np.convolve(rng.normal(size=len(time)), np.hanning(12), mode="same")
        samples = noise * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time + number))
        path = folder / f"clip{number}.wav"
        sf.write(path, (0.3 * samples / np.abs(samples).max()).astype(np.float32), 16_000)
        prompts.append(Prompt(f"clip{number}", str(path), text, "en", f"speaker{number}", seconds))
    return prompts
