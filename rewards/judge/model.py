"""The weights that a judge's server loads, and whether they can hold a conversation."""

import hashlib
import json
from pathlib import Path

from rlhf_platform.errors import RecipeError

SMOLLM2 = "smollm2"
"""Comes with the platform: SmolLM2-135M-Instruct (`policies.pretrained.smollm2`)."""
_WRITTEN = "smollm2-bfloat16"


def model_folder(model: str, cache: Path, key: str) -> str:
    """What vLLM is given: a folder, or a name on the hub as it is. `smollm2` is written to `cache` unless it is there.

    Raises `RecipeError` for a path that is no folder, `DataError` when the package of `smollm2` is not installed.
    """
    if model == SMOLLM2:
        return str(_smollm2(cache))
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise RecipeError(f"{key} is {model!r}: there is no such folder; name one, a model on the hub or {SMOLLM2}")
    return model


def with_lora(path: str, adapter: Path, dtype: str, cache: Path, key: str) -> str:
    """A model with a LoRA merged into its weights, written to `cache` in `dtype` unless it is there; its folder.

    On a CPU vLLM takes more than twice as long over a LoRA beside the weights. Raises `RecipeError` where the two do
    not fit.
    """
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf_platform.data.build import build_once, key_of

    local = fingerprint(Path(path)) if Path(path).is_dir() else ""
    stamp = {"model": path, "files": local, "lora": fingerprint(adapter), "dtype": dtype}
    out = cache.expanduser() / f"merged-{key_of(stamp)}"

    def write(folder: Path) -> None:
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            what = " ".join(str(error).split())[:200]
            raise RecipeError(f"{key} is {str(adapter)!r}: it does not fit the judge's model ({what})") from None
        merged.to(getattr(torch, dtype)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(path).save_pretrained(folder)

    build_once(out, f"{adapter.name} in {Path(path).name}", stamp, write)
    return str(out)


def fingerprint(folder: Path) -> str:
    """Eight hex digits that change with a folder's files, to keep apart what was answered before and after."""
    facts = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def check_chat_template(path: str, model: str, key: str) -> None:
    """Raises `RecipeError` when the tokenizer has no chat template, or cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        template = AutoTokenizer.from_pretrained(path).chat_template
    except (OSError, ValueError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise RecipeError(f"{key} is {model!r}: its tokenizer cannot be loaded ({what}); name another model") from None
    if not template:
        raise RecipeError(
            f"{key} is {model!r}: its tokenizer has no chat template, so it is no judge; name a model that was "
            "tuned to follow instructions, or save one with `tokenizer.chat_template` set"
        )


def _smollm2(cache: Path) -> Path:
    import torch

    from policies.pretrained.smollm2 import NOTICE, license_text, load_smollm2
    from rlhf_platform.data.build import build_once, key_of

    stamp = {"model": SMOLLM2, "dtype": "bfloat16", "version": 1}
    out = cache.expanduser() / f"{_WRITTEN}-{key_of(stamp)}"

    def write(folder: Path) -> None:
        model, tokenizer = load_smollm2()
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "NOTICE.txt").write_text(f"{NOTICE}\n{license_text()}", encoding="utf-8")

    build_once(out, SMOLLM2, stamp, write)
    return out
