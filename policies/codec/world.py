"""The codec that comes with the platform: the WORLD vocoder and a small network that quantises its features.

25 frames a second of three codes, 75 tokens a second. `train_world` made the weights; docs/codecs.md has the figures.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors

from policies.codec.features import FRAME, VOICED, Features, analyse, synthesise
from policies.codec.interface import Codec, CodecError, Codes, check_samples
from policies.codec.layout import check_codes
from policies.codec.world_net import CODEBOOKS, ROWS, WorldNet
from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.types import Waveform

WEIGHTS = Path(__file__).parent / "world.safetensors"
SHA256 = "05e174b0dbc7e248b04f5c3c841ec5586ea17f340cedccef4795d596d205c9cb"
SAMPLES = FRAME * ROWS
"""In a frame."""


class WorldCodec(Codec):
    """One speaker at a time, at 16 kHz. The sound is padded with silence to whole frames."""

    name = "world"
    sample_rate = SAMPLE_RATE
    frame_rate = SAMPLE_RATE / SAMPLES

    def __init__(self, codebooks: int | None = None) -> None:
        """`codebooks`: use only so many, the coarse ones. Raises `CodecError` for more than there are."""
        if codebooks is not None and not 1 <= codebooks <= len(CODEBOOKS):
            raise CodecError(f"codebooks is {codebooks}: codec 'world' has {len(CODEBOOKS)}; allowed 1 to that")
        self.codebooks = CODEBOOKS[:codebooks]
        self.net = load_net(WEIGHTS)

    def encode(self, samples: Waveform) -> Codes:
        check_samples(samples, SAMPLES)
        features = analyse(np.pad(samples, (0, -len(samples) % SAMPLES)))
        with torch.inference_mode():
            codes: Codes = self.net.quantizer.codes_of(self.net.latents(torch.from_numpy(features)[None])[0]).numpy()
        return codes[:, : len(self.codebooks)]

    def decode(self, codes: Codes) -> Waveform:
        return synthesise(self.features_of(codes))

    def features_of(self, codes: Codes) -> Features:
        """WORLD's features (ROWS * F, WIDTH) of codes (F, K). Raises as `decode`."""
        check_codes(codes, self.codebooks)
        with torch.inference_mode():
            latents = self.net.quantizer.latents_of(torch.from_numpy(codes))[None]
            features: Features = self.net.sharpen(self.net.features(latents))[0].numpy()
        features[:, VOICED] = features[:, VOICED] > 0  # from log-odds
        return features


@cache
def load_net(weights: Path) -> WorldNet:
    """The network in evaluation mode. Raises `CodecError` for another file than the one that was committed."""
    content = weights.read_bytes() if weights.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise CodecError(
            f"{weights}: {f'its SHA-256 is {found}, expected {SHA256}' if content else 'no such file'}; it comes with "
            "the platform, check it out or install it again"
        )
    net = WorldNet()
    net.load_state_dict({name: values.float() for name, values in load_tensors(content).items()})
    return net.eval().requires_grad_(False)
