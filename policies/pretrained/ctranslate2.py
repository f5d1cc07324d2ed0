"""Read the variables of a CTranslate2 model file (`model.bin`), binary version 6, without CTranslate2.

All numbers are little-endian. A string is a uint16 length, which counts a closing zero byte, and the bytes.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Variable = npt.NDArray[Any]

_VERSION = 6
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.position)
        self.position += struct.calcsize("<" + code)
        return int(value)

    def text(self) -> str:
        return self.take(self.number("H"))[:-1].decode()

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        if len(piece) < size:
            raise ValueError(f"ends {size - len(piece)} bytes too early")
        self.position += size
        return piece

    def variable(self) -> Variable:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = np.dtype(_DTYPES[self.number("B")]).newbyteorder("<")
        return np.frombuffer(self.take(self.number("I")), dtype).reshape(shape)


def read_variables(file: Path, model: str) -> tuple[dict[str, Variable], dict[str, str]]:
    """The variables by name, as stored, and the aliases (alias to variable).

    `model`: name of the model's specification, e.g. `WhisperSpec`. Raises `ValueError` if the file is another
    model's, of another binary version, or is not used up to its last byte.
    """
    reader = _Reader(file.read_bytes())
    version, name, _revision = reader.number("I"), reader.text(), reader.number("I")
    if (version, name) != (_VERSION, model):
        raise ValueError(f"{file}: {name} of binary version {version}, expected {model} of version {_VERSION}")
    variables = {reader.text(): reader.variable() for _ in range(reader.number("I"))}
    aliases = {reader.text(): reader.text() for _ in range(reader.number("I"))}
    if reader.position != len(reader.data):
        raise ValueError(f"{file}: {len(reader.data) - reader.position} bytes after the last alias")
    return variables, aliases
