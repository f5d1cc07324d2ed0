"""What a micro-batch keeps between forward and backward. Arithmetic only; all results in bytes.

The tensors that autograd saves are counted, layer by layer (`policies.dimensions.Layers.kept`). With `checkpointed`
(`learner.activation_checkpointing`) it is the input of each layer, and all of one layer at a time. `width`: bytes of a
weight and an activation, 4 (float32) or 2 (bfloat16).
"""

from policies.dimensions import Dimensions, Encoder, Layers
from rlhf_platform.algorithms.logprobs import TILED_FROM

SINGLE = 4
"""Bytes of float32."""
TILE_TOKENS = 4096
"""Tokens of a tile of the output head, in TRL's kernel."""
TILE = 4096
"""Vocabulary entries of one in the policy (`rlhf_platform.algorithms.logprobs`)."""
TRAINER_TILE = 32_768
"""The same in TRL's own trainers."""
_ARRAYS = 12
_THRESHOLD = 32 * 2**20


def stack(layers: Layers, rows: int, positions: int, width: int, checkpointed: bool = False) -> int:
    """Layers over `rows` sequences of `positions`: features, and a mask (rows, positions, positions) per layer."""
    same, single = layers.kept()
    layer = same * width + single * SINGLE + positions * width
    kept = layers.count * layers.width * width + layer if checkpointed else layers.count * layer
    # The last norm keeps its input and what it normalised.
    last = layers.width * (SINGLE + width)
    return rows * positions * (kept + last)


def across(layers: Layers, rows: int, positions: int, width: int, checkpointed: bool = False) -> int:
    """Keys and values of the cross-attention: of each row, at every position of its clip, in every layer."""
    count = 1 if checkpointed else layers.count
    return count * rows * positions * 2 * layers.attention_width * width if layers.crosses else 0


def head(tokens: int, vocabulary: int, features: int, width: int, learns: bool = True, on_gpu: bool = False) -> int:
    """Log-probs and entropy at `tokens` completion tokens, as the policy computes them: at once or, over a large
    vocabulary, in tiles. The arguments are those of `tiled_head`."""
    if vocabulary < TILED_FROM:
        return whole_head(tokens, vocabulary, width)
    return tiled_head(tokens, vocabulary, features, width, learns, on_gpu)


def whole_head(tokens: int, vocabulary: int, width: int) -> int:
    """At the moment when most exists, the end of the forward pass.

    Logits in the model's type, and five arrays (tokens, vocabulary) in float32: scaled logits, log-probs twice, masked
    and not, probabilities, and their product.
    """
    return tokens * vocabulary * (width + 5 * SINGLE)


def tiled_head(
    tokens: int, vocabulary: int, features: int, width: int, learns: bool, on_gpu: bool, tile: int = TILE
) -> int:
    """At the moment when most exists, a tile of `tile` vocabulary entries in the backward pass.

    The tile in the model's type and, where no kernel of a GPU works in place, seven arrays of it in float32, eight with
    an entropy bonus, and one of a byte: scaled logits, log-probs, probabilities, gradient, and what they are made of.
    Beside it the gradients of all states and, if it `learns`, of the head's weight, `features` wide, which are summed
    in float32 and then rounded to the model's type.
    """
    places = min(tokens, TILE_TOKENS) * min(vocabulary, tile)
    summed = features * (tokens + (vocabulary if learns else 0))
    at_work = places * (0 if on_gpu else 8 * SINGLE + 1) + summed * SINGLE
    return places * width + max(at_work, summed * (SINGLE + (width if width < SINGLE else 0)))


def heap(sizes: Dimensions, kept: int) -> int:
    """What glibc does not give back of the layers' `kept` bytes, on a CPU.

    Blocks of at most 32 MiB go back into the heap and not to the system (mallopt(3), M_MMAP_THRESHOLD); where other
    blocks lie between them the next micro-batch takes new ones, so that they may stand there twice. A layer makes about
    a dozen arrays.
    """
    layers = sizes.decoder.count + (sizes.encoder.layers.count if sizes.encoder else 0)
    return min(kept, layers * _ARRAYS * _THRESHOLD)


def encoder(part: Encoder, clips: int, positions: int, width: int, checkpointed: bool = False) -> int:
    """An encoder that learns: its layers, the convolutions before them, and the clips' features (float32)."""
    features = clips * positions * part.mel_bins * SINGLE * round(100 / part.rate)
    kept = stack(part.layers, clips, positions, width, checkpointed)
    return kept + clips * positions * part.front_kept * width + features


def passing(part: Encoder, clips: int, positions: int, width: int) -> int:
    """An encoder that does not learn: the widest moment of a pass over `clips`, which is gone afterwards."""
    layer = part.layers.width * 6 + 2 * part.layers.inner_width
    return clips * positions * max(layer, part.front_kept // 2) * width


def layers_of(
    sizes: Dimensions,
    rows: int,
    clips: int,
    positions: int,
    seconds: float,
    width: int,
    train: bool,
    checkpointed: bool = False,
) -> int:
    """All layers in one forward of `rows` samples of `clips` clips of `seconds`, with `positions` decoder positions a
    row. `train`: whether the encoder learns."""
    kept = stack(sizes.decoder, rows, positions, width, checkpointed)
    kept += across(sizes.decoder, rows, sizes.output_positions(seconds), width, checkpointed)
    if sizes.encoder is not None and train:
        kept += encoder(sizes.encoder, clips, sizes.encoder_positions(seconds), width, checkpointed)
    return kept
