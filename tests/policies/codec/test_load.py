"""Codecs by name: what is refused."""

import pytest

from policies.codec.interface import CodecError
from policies.codec.load import load_codec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flac",), "unknown codec 'flac': world, mimi"),
        (("world", "somewhere"), "takes no path, got 'somewhere'"),
        (("world", None, 4), "codebooks is 4: codec .world. has 3"),
        (("snac", "somewhere", 2), "fixed number of codebooks"),
        (("mimi",), "codec 'mimi' needs a path"),
    ],
)
def test_what_cannot_be_loaded_is_refused(arguments: tuple[str], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        load_codec(*arguments)
