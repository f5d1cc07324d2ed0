"""What every audio layout asks of a checkpoint's processor before anything is loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

from rlhf_platform.errors import RecipeError

MEL_RATE = 16_000
"""Hz. The encoders of all layouts were trained on mel frames of 10 ms, 0 to 8 kHz, made from audio at this rate."""


def load_processor(kind: type[ProcessorMixin], path: str, named: Mapping[str, str]) -> Any:
    """The processor at `path`. `named`: what it asks its tokenizer for, as attribute and usual token.

    Raises RecipeError for a tokenizer that does not know one of them.
    """
    try:
        return kind.from_pretrained(path)
    except AttributeError:
        tokenizer = AutoTokenizer.from_pretrained(path)
        missing = [f"{token} ({name})" for name, token in named.items() if not hasattr(tokenizer, name)]
        if not missing:
            raise
        raise RecipeError(
            f"backbone.path is {path!r}: its tokenizer does not name {', '.join(missing)}; add them to its "
            "tokenizer_config.json, and to the embeddings where the vocabulary has no such token"
        ) from None


def check_sample_rate(path: str, rate: int) -> None:
    """Raises RecipeError for a processor that takes audio of another rate than its encoder was trained on."""
    if rate != MEL_RATE:
        raise RecipeError(
            f"backbone.path is {path!r}: its processor takes audio at {rate} Hz, its encoder was trained at "
            f"{MEL_RATE} Hz; mend sampling_rate of its feature extractor"
        )


def check_tokens(path: str, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> None:
    """Raises RecipeError for a vocabulary without one of the control tokens that the prompt is made of."""
    vocabulary = tokenizer.get_vocab()
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise RecipeError(
            f"backbone.path is {path!r}: its vocabulary lacks {', '.join(missing)}, which the prompt is made of; "
            "add them to its tokenizer and resize its embeddings"
        )
