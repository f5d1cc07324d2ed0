"""What a micro-batch keeps between forward and backward. Arithmetic only; all results in bytes.

The tensors that autograd saves are counted, layer by layer (`policies.dimensions.Layers.kept`); there is no activation
checkpointing. `width`: bytes of a weight and an activation, 4 (float32) or 2 (bfloat16).
"""

from policies.dimensions import Dimensions, Encoder, Layers

SINGLE = 4
"""Bytes of float32."""
_ARRAYS = 12
_THRESHOLD = 32 * 2**20


def stack(layers: Layers, rows: int, positions: int, width: int) -> int:
    """Layers over `rows` sequences of `positions`: features, and a mask (rows, positions, positions) per layer."""
    same, single = layers.kept()
    # The last norm keeps its input and what it normalised.
    last = layers.width * (SINGLE + width)
    return rows * positions * (layers.count * (same * width + single * SINGLE + positions * width) + last)


def across(layers: Layers, rows: int, positions: int, width: int) -> int:
    """Keys and values of the cross-attention: of each row, at every position of its clip, in every layer."""
    return layers.count * rows * positions * 2 * layers.attention_width * width if layers.crosses else 0


def head(tokens: int, vocabulary: int, width: int, after_another: bool = False) -> int:
    """Logits, log-probs and entropy at `tokens` completion tokens, at the moment when most of them exist.

    Logits in the model's type, and five arrays (tokens, vocabulary) in float32: scaled logits, log-probs twice, masked
    and not, probabilities, and their product (`rlhf_platform.algorithms.logprobs`). Backward replaces them by as many.
    `after_another`: the entropy of the micro-batch before, which the loss does not go through, still holds its
    probabilities and masked log-probs.
    """
    return tokens * vocabulary * (width + (7 if after_another else 5) * SINGLE)


def heap(sizes: Dimensions, kept: int) -> int:
    """What glibc does not give back of the layers' `kept` bytes, on a CPU.

    Blocks of at most 32 MiB go back into the heap and not to the system (mallopt(3), M_MMAP_THRESHOLD); where other
    blocks lie between them the next micro-batch takes new ones, so that they may stand there twice. A layer makes about
    a dozen arrays.
    """
    layers = sizes.decoder.count + (sizes.encoder.layers.count if sizes.encoder else 0)
    return min(kept, layers * _ARRAYS * _THRESHOLD)


def encoder(part: Encoder, clips: int, positions: int, width: int) -> int:
    """An encoder that learns: its layers, the convolutions before them, and the clips' features (float32)."""
    features = clips * positions * part.mel_bins * SINGLE * round(100 / part.rate)
    return stack(part.layers, clips, positions, width) + clips * positions * part.front_kept * width + features


def passing(part: Encoder, clips: int, positions: int, width: int) -> int:
    """An encoder that does not learn: the widest moment of a pass over `clips`, which is gone afterwards."""
    layer = part.layers.width * 6 + 2 * part.layers.inner_width
    return clips * positions * max(layer, part.front_kept // 2) * width


def layers_of(sizes: Dimensions, rows: int, clips: int, positions: int, seconds: float, width: int, train: bool) -> int:
    """All layers in one forward of `rows` samples of `clips` clips of `seconds`, with `positions` decoder positions a
    row. `train`: whether the encoder learns."""
    kept = stack(sizes.decoder, rows, positions, width)
    kept += across(sizes.decoder, rows, sizes.output_positions(seconds), width)
    if sizes.encoder is not None and train:
        kept += encoder(sizes.encoder, clips, sizes.encoder_positions(seconds), width)
    return kept
