"""A tiny backbone that speaks, for tests."""

import shutil
from dataclasses import replace
from pathlib import Path

from policies.speaking import SpeechLayout
from rlhf_platform.types import Prompt

LAYOUT = SpeechLayout(
    codec="world",
    codec_path=None,
    codebooks=(8, 4, 4),
    frame_rate=20.0,
    instructions="global",
    shortest=0.02,
    longest=0.1,
)
PROMPTS = [
    Prompt("short", "", "red", "en", metadata={"instruction": "slowly"}),
    Prompt("long", "", "open the red box", "en"),
    Prompt("middle", "", "green cup", "en", metadata={"instruction": "in a high voice"}),
]


def write_speaking_checkpoint(backbone: Path, path: Path, **changes: object) -> None:
    """`backbone`, which has 16 codec tokens, with a layout to speak with."""
    shutil.copytree(backbone, path)
    replace(LAYOUT, **changes).write(path)  # type: ignore[arg-type]
