"""What tests of several floors share. Heavy imports stay in the fixtures, so that light tests do not pay for them."""

from pathlib import Path

import pytest
from hypothesis import settings

from rlhf_platform.types import Prompt

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of a few 100,000 parameters in Hugging Face layout, no parameter at its initial 0 or 1."""
    from tests.tiny import write_checkpoint

    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Clips of 0.4, 0.8, 1.3 and 2.9 s: below the encoder's least length, below one of its chunks, above both."""
    from tests.tiny import write_clips

    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def drafting_checkpoint(tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny backbone with three heads of multi-token prediction, about half of whose guesses hold."""
    from tests.drafting import write_drafting_checkpoint

    path = tmp_path_factory.mktemp("drafting") / "checkpoint"
    write_drafting_checkpoint(tiny_checkpoint, clips, path)
    return path
