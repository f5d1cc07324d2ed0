"""The small shared backbone in the Qwen2-Audio layout: Whisper tiny.en hears, SmolLM2-135M speaks.

The adaptor between them and the rows of the new tokens are untrained: out of the box it writes text like SmolLM2
and hears nothing. Both decoders are the same arithmetic: Qwen2 is Llama with biases on q, k and v, here 0.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from policies.pretrained import smollm2, whisper_tiny_en
from policies.qwen2_audio import published_name
from policies.tokenizer import audio_slot
from rlhf_platform.errors import RecipeError

AUDIO, AUDIO_BEGIN, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
POSITIONS_PER_SECOND = 50
"""Encoder positions before the pooling, which halves them."""
LONGEST_WINDOW = 30
SEED = 0
NEW_ROW_NOISE = 0.1
"""Spread of the new tokens' rows around the mean row, as a share of the old rows' spread: enough to tell them apart."""


def build_small(audio_slots: int, window: float, path: Path) -> None:
    """Write the backbone to `path` in float32: model, processor, licences.

    `audio_slots`: codec tokens after the text pieces and the three audio marks. `window`: seconds that every clip is
    padded to, whole. Raises `RecipeError` for another window, `DataError` if a package is missing or not the one meant.
    """
    if window != int(window) or not 1 <= window <= LONGEST_WINDOW:
        raise RecipeError(
            f"backbone.window is {window:g}: this backbone takes whole seconds from 1 to {LONGEST_WINDOW}"
        )
    heard = whisper_tiny_en.state_dict(whisper_tiny_en.WEIGHTS.locate())
    spoken, tokenizer = smollm2.load_smollm2()
    _add_tokens(tokenizer, audio_slots)
    pad, audio = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids(AUDIO)
    config = small_config(len(tokenizer), int(window), pad, audio)
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(SEED)
    spread = float(spoken.get_input_embeddings().weight.detach().std())
    state = _encoder(heard, config) | _adaptor(config, spread, generator)
    state |= _decoder(spoken.state_dict(), len(tokenizer), config.text_config.num_hidden_layers, generator)
    model.load_state_dict(state, strict=True, assign=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    # Of a model that it has not loaded, Transformers 5.19 would write `language_model.model.model.`: not vLLM's names.
    names = {published_name(name): values for name, values in model.state_dict().items()}
    model.save_pretrained(path, state_dict=names, save_original_format=False)
    Qwen2AudioProcessor(WhisperFeatureExtractor(chunk_length=int(window)), tokenizer).save_pretrained(path)
    (path / "NOTICE.txt").write_text(notice_text(), encoding="utf-8")


def notice_text() -> str:
    """Origins and licences, for every copy of the weights."""
    return "\n".join((whisper_tiny_en.notice_text(), smollm2.NOTICE, smollm2.license_text()))


def _add_tokens(tokenizer: PreTrainedTokenizerFast, audio_slots: int) -> None:
    # SmolLM2 pads with its end token: labels made from padding would then lose the end.
    tokenizer.pad_token = "<|endoftext|>"
    marks = [AUDIO, AUDIO_BEGIN, AUDIO_END, *(audio_slot(i) for i in range(audio_slots))]
    tokenizer.add_tokens(marks, special_tokens=True)


def small_vocabulary(audio_slots: int) -> int:
    """Tokens of the backbone with so many codec tokens."""
    return int(smollm2.CONFIG.vocab_size) + len((AUDIO, AUDIO_BEGIN, AUDIO_END)) + audio_slots


def small_config(vocabulary: int, window: int, pad_token: int = 0, audio_token: int = 0) -> Qwen2AudioConfig:
    """The configuration for a vocabulary of so many tokens. `window`: seconds."""
    llama = smollm2.CONFIG
    same = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("max_position_embeddings", "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id"),
    )
    return Qwen2AudioConfig(
        audio_config={
            "d_model": whisper_tiny_en.WIDTH,
            "encoder_layers": whisper_tiny_en.LAYERS,
            "encoder_attention_heads": whisper_tiny_en.HEADS,
            "encoder_ffn_dim": 4 * whisper_tiny_en.WIDTH,
            "num_mel_bins": 80,
            "scale_embedding": False,
            "max_source_positions": window * POSITIONS_PER_SECOND,
        },
        text_config={name: getattr(llama, name) for name in same}
        | {
            "vocab_size": vocabulary,
            "pad_token_id": pad_token,
            "tie_word_embeddings": True,
        },
        audio_token_index=audio_token,
        tie_word_embeddings=True,
    )


def _encoder(heard: dict[str, Tensor], config: Qwen2AudioConfig) -> dict[str, Tensor]:
    old, new = "model.encoder.", "model.audio_tower."
    state = {name.replace(old, new): values for name, values in heard.items() if name.startswith(old)}
    positions = f"{new}embed_positions.weight"
    state[positions] = state[positions][: config.audio_config.max_source_positions].clone()
    return state


def _adaptor(config: Qwen2AudioConfig, spread: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Fan-in scaling to the `spread` of the text embeddings, among which the decoder reads the output; biases 0."""
    fan_in, fan_out = config.audio_config.d_model, config.text_config.hidden_size
    name = "model.multi_modal_projector.linear"
    weight = torch.randn(fan_out, fan_in, generator=generator) * spread / fan_in**0.5
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(fan_out)}


def _decoder(spoken: dict[str, Tensor], vocabulary: int, layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    state = {name.replace("model.", "model.language_model.", 1): values for name, values in spoken.items()}
    embedding = spoken["model.embed_tokens.weight"]
    mean, spread = embedding.mean(0), embedding.std(0)
    new = vocabulary - len(embedding)
    rows = mean + NEW_ROW_NOISE * spread * torch.randn(new, len(mean), generator=generator)
    state["model.language_model.embed_tokens.weight"] = torch.cat([embedding, rows])
    # Tied as in SmolLM2. vLLM reads that in the configuration; Transformers 5.19 does not in this layout and would
    # load a head that is not in the file at random, so it is written too.
    state["lm_head.weight"] = torch.cat([embedding, rows])
    for layer in range(layers):
        for part in ("q_proj", "k_proj", "v_proj"):
            name = f"model.language_model.layers.{layer}.self_attn.{part}"
            state[f"{name}.bias"] = torch.zeros(len(state[f"{name}.weight"]))
    return state
