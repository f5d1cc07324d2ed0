"""From `backbone.build` in a recipe to a checkpoint on disk."""

from collections.abc import Iterable
from pathlib import Path

from rlhf_platform.recipe.backbone import BackboneConfig


def build_backbone(backbone: BackboneConfig, texts: Iterable[str], path: Path) -> None:
    """Write the checkpoint that `backbone.build` names to `path`, in Hugging Face layout.

    `texts`: what the text pieces of a backbone from nothing are learnt from. Raises DataError when the package that
    carries the pretrained weights is not installed or not the one that was checked.
    """
    if backbone.build == "tiny":
        from policies.tiny import build_tiny

        build_tiny(backbone.tiny, texts, backbone.window, path)
    elif backbone.build == "whisper_tiny_en":
        from policies.pretrained.whisper_tiny_en import build_whisper_tiny_en

        build_whisper_tiny_en(path)
    elif backbone.build == "smollm2":
        from policies.pretrained.smollm2 import build_smollm2

        build_smollm2(path)
    else:
        from policies.pretrained.small import build_small

        build_small(backbone.tiny.audio_slots, backbone.window, path)


def notice_of(build: str) -> str:
    """Origin and licence of the weights that `backbone.build` starts from, for every copy; empty when from nothing.

    Raises DataError when the package that carries the licence is not installed.
    """
    if build == "whisper_tiny_en":
        from policies.pretrained import whisper_tiny_en

        return whisper_tiny_en.notice_text()
    if build == "small":
        from policies.pretrained import small

        return small.notice_text()
    if build == "smollm2":
        from policies.pretrained import smollm2

        return f"{smollm2.NOTICE}\n{smollm2.license_text()}"
    return ""
