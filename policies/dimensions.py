"""The sizes of a layout that decide its memory and work, read from a configuration alone."""

import math
from dataclasses import dataclass

FRAME_RATE = 100
"""Mel frames per second in every layout."""


@dataclass(frozen=True)
class Layers:
    """One stack of Transformer layers, in features."""

    count: int
    width: int
    """Of the residual stream."""
    attention_width: int
    """Of all query heads together."""
    key_value_width: int
    """Of all key heads together; values are as wide."""
    inner_width: int
    """Of the MLP."""
    gated: bool = False
    """RMSNorm and an MLP with a gate, as in Llama; else LayerNorm and GELU, as in Whisper."""
    normed_heads: bool = False
    """Queries and keys are normalised, as in Qwen3."""
    crosses: bool = False
    """Each layer also looks at the encoder's output, with queries of its own."""

    def kept(self) -> tuple[int, int]:
        """What one layer keeps of a position for backward: features in the model's type, and features in float32.

        Counted in the tensors that autograd saves for Transformers 5.19 with `sdpa` attention, beside masks and the
        scales of norms (after 2205.05198, section 4.1): inputs of norms and of linear layers, queries, keys, values
        and output of attention, both factors of a gate. RMSNorm computes in float32 and keeps its input so.
        """
        width, query, key, inner = self.width, self.attention_width, self.key_value_width, self.inner_width
        if self.gated:
            same, single = 4 * width + 2 * query + 2 * key + 4 * inner, 2 * width
            if self.normed_heads:
                same, single = same + query + key, single + query + key
            return same, single
        attention = 2 * width + 5 * query
        crossing = 2 * width + 3 * query if self.crosses else 0
        return attention + crossing + 2 * width + 2 * inner, 0


@dataclass(frozen=True)
class Encoder:
    """The audio encoder and how it measures time."""

    layers: Layers
    rate: float
    """Positions per second inside the layers."""
    output_rate: float
    """Positions per second that come out, before the adaptor."""
    output_width: int
    """Features of each of them."""
    mel_bins: int
    front_kept: int
    """Features per position that the convolutions before the layers keep between forward and backward."""
    padded: bool
    """Whether every clip is as long as the window."""


@dataclass(frozen=True)
class Dimensions:
    """A whole model."""

    decoder: Layers
    vocabulary: int
    """Rows of the output head."""
    prompt_tokens: int
    """Tokens of the prompt around the audio, rounded up."""
    encoder: Encoder | None = None
    """None for text prompts."""

    def encoder_positions(self, seconds: float) -> int:
        """Inside the encoder, for a clip of `seconds`."""
        return math.ceil(seconds * self.encoder.rate) if self.encoder else 0

    def output_positions(self, seconds: float) -> int:
        """Encoder output that is kept of a clip of `seconds`."""
        return math.ceil(seconds * self.encoder.output_rate) if self.encoder else 0

    def audio_tokens(self, seconds: float) -> int:
        """Positions that a clip of `seconds` takes among the decoder's tokens; 0 where the decoder looks across."""
        return 0 if self.decoder.crosses else self.output_positions(seconds)
