"""The window of encoders with a stored position per 0.02 s: every clip is padded to all of them, none may be longer."""

import math
from typing import Any

from torch import nn

from policies.dimensions import FRAME_RATE, Encoder, Layers
from rlhf_platform.errors import RecipeError

_STRIDE = 2
"""Mel frames per encoder position."""
RATE = FRAME_RATE / _STRIDE
"""Encoder positions per second."""


def positions_for(seconds: float) -> int:
    """Encoder positions of a window of `seconds`."""
    return math.ceil(seconds * RATE)


def whisper_encoder(config: Any, output_rate: float, output_width: int, padded: bool) -> Encoder:
    """The dimensions of Whisper's encoder: two convolutions, the second of stride 2, then layers."""
    width = config.d_model
    layers = Layers(config.encoder_layers, width, width, width, config.encoder_ffn_dim)
    # Input and output of the first convolution and of its GELU, at two frames a position, output of the second.
    front = _STRIDE * (config.num_mel_bins + 2 * width) + width
    return Encoder(layers, RATE, output_rate, output_width, config.num_mel_bins, front, padded)


def covered_seconds(positions: int, extractor: Any) -> float:
    """Seconds that `positions` of the encoder cover, given the feature extractor's hop and rate."""
    return float(positions * _STRIDE * extractor.hop_length / extractor.sampling_rate)


def check_window(path: str, positions: int, extractor: Any) -> None:
    """Raises RecipeError when the processor pads clips to another length than the encoder has positions for."""
    covered = covered_seconds(positions, extractor)
    if covered != extractor.chunk_length:
        raise RecipeError(
            f"backbone.path is {path!r}: its processor pads clips to {extractor.chunk_length:g} s, its encoder has "
            f"positions for {covered:g} s; mend chunk_length of its feature extractor"
        )


def freeze_positions(encoder: Any) -> None:
    """They are sinusoids and not learnt; Transformers 5.19 says so when it makes the model and forgets it on loading,
    except at ZeRO 3."""
    encoder.embed_positions.requires_grad_(False)


def cut_positions(encoder: Any, extractor: Any, seconds: float) -> None:
    """Keep the encoder's first positions and let the extractor pad to them. Raises RecipeError for part of a second."""
    if seconds != int(seconds):
        raise RecipeError(f"backbone.window is {seconds:g}: this layout's window is whole seconds; {int(seconds) + 1}")
    stored = encoder.embed_positions
    extractor.chunk_length = int(seconds)
    positions = int(seconds) * extractor.sampling_rate // (_STRIDE * extractor.hop_length)
    stored.weight = nn.Parameter(stored.weight[:positions].clone(), requires_grad=False)
    stored.num_embeddings = encoder.config.max_source_positions = positions
