"""What a micro-batch keeps between forward and backward. Arithmetic only; all results in bytes.

The tensors that autograd saves are counted, layer by layer (`policies.dimensions.Layers.kept`); there is no activation
checkpointing. `width`: bytes of a weight and an activation, 4 (float32) or 2 (bfloat16).
"""

from policies.dimensions import Dimensions, Encoder, Layers

SINGLE = 4
"""Bytes of float32."""


def stack(layers: Layers, rows: int, positions: int, width: int) -> int:
    """Layers over `rows` sequences of `positions`: features, and a mask (rows, positions, positions) per layer."""
    same, single = layers.kept()
    # The last norm keeps its input and what it normalised.
    last = layers.width * (SINGLE + width)
    return rows * positions * (layers.count * (same * width + single * SINGLE + positions * width) + last)


def across(layers: Layers, rows: int, positions: int, width: int) -> int:
    """Keys and values of the cross-attention: of each row, at every position of its clip, in every layer."""
    return layers.count * rows * positions * 2 * layers.attention_width * width if layers.crosses else 0


def head(tokens: int, vocabulary: int, width: int) -> int:
    """Logits, log-probs and entropy at `tokens` completion tokens, at the moment when most of them exist.

    Logits in the model's type, and five arrays (tokens, vocabulary) in float32: scaled and masked logits, log-probs,
    probabilities and their product (`rlhf_platform.algorithms.logprobs`). Backward replaces them by as many.
    """
    return tokens * vocabulary * (width + 5 * SINGLE)


def encoder(part: Encoder, clips: int, positions: int, width: int) -> int:
    """An encoder that learns: its layers, the convolutions before them, and the clips' features (float32)."""
    features = clips * positions * part.mel_bins * SINGLE * round(100 / part.rate)
    return stack(part.layers, clips, positions, width) + clips * positions * part.front_kept * width + features


def passing(part: Encoder, clips: int, positions: int, width: int) -> int:
    """An encoder that does not learn: the widest moment of a pass over `clips`, which is gone afterwards."""
    layer = part.layers.width * 6 + 2 * part.layers.inner_width
    return clips * positions * max(layer, part.front_kept // 2) * width


def micro_batch(
    sizes: Dimensions, rows: int, clips: int, positions: int, completion: int, seconds: float, width: int, train: bool
) -> int:
    """All of one forward of `rows` samples of `clips` clips of `seconds`, with `positions` decoder positions a row, the
    last `completion` of which are its completion. `train`: whether the encoder learns."""
    kept = stack(sizes.decoder, rows, positions, width)
    kept += across(sizes.decoder, rows, sizes.output_positions(seconds), width)
    kept += head(rows * completion, sizes.vocabulary, width)
    if sizes.encoder is not None and train:
        kept += encoder(sizes.encoder, clips, sizes.encoder_positions(seconds), width)
    return kept
