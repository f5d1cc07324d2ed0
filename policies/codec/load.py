"""Codecs by name."""

from policies.codec.interface import Codec, CodecError

NAMES = ("world", "mimi", "dac", "encodec", "snac")
"""`world` comes with the platform; the others need a checkpoint."""


def load_codec(name: str, path: str | None = None, codebooks: int | None = None) -> Codec:
    """The codec of that name.

    `path`: folder or hub name of its checkpoint. `codebooks`: use only so many, the coarse ones, of a residual codec
    (all but `snac`). Raises `CodecError` for an unknown name, or what the codec does not take.
    """
    if name not in NAMES:
        raise CodecError(f"unknown codec {name!r}: {', '.join(NAMES)}")
    if codebooks is not None and name == "snac":
        raise CodecError(f"codec {name!r} has a fixed number of codebooks; leave `codebooks` out")
    if name == "world":
        if path is not None:
            raise CodecError(f"codec 'world' comes with the platform and takes no path, got {path!r}; leave it out")
        from policies.codec.world import WorldCodec  # each here: one codec needs none of the others' libraries

        return WorldCodec(codebooks)
    if path is None:
        raise CodecError(f"codec {name!r} needs a path: the folder or hub name of its checkpoint")
    if name == "snac":
        from policies.codec.snac import SnacCodec

        return SnacCodec(path)
    from policies.codec.transformers_codecs import TransformersCodec

    return TransformersCodec(name, path, codebooks)
