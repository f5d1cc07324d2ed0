"""Take the CUDA-linked libraries out of the torchaudio and torchvision wheels.

The published wheels of these versions load libraries of CUDA when imported, which a machine without a GPU
does not have. Their Python parts need none of it. The result carries a local version, so that pip
and a reader of `pip list` see what is installed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

from infra.lock import SetupError

LOCAL_VERSION = "cpu.repack"

# torchvision's Python code registers gradients and shapes for operators that its C++ library would have
# defined; without a definition, importing torchvision fails. Calling one still says that there are no ops.
_TORCHVISION_SCHEMAS = """

# Added by rlhf-platform's infra/repack_wheels.py: this build has no C++ operators, only their names.
if not _has_ops():
    _lib = torch.library.Library("torchvision", "DEF")
    _lib.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _lib.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

# Text to put at the end of a file, by its path in the wheel.
ADDITIONS = {"torchvision": {"torchvision/extension.py": _TORCHVISION_SCHEMAS}, "torchaudio": {}}


def is_library(path: str) -> bool:
    """Whether a path in a wheel is a compiled library: `x.so` or `libx.1a2b.so.8`."""
    name = path.rsplit("/", 1)[-1]
    return name.endswith(".so") or ".so." in name


def _record_row(path: str, data: bytes) -> tuple[str, str, str]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return path, f"sha256={digest}", str(len(data))


def repack(wheel: Path, folder: Path) -> Path:
    """Write `wheel` without its libraries into `folder` and return the new wheel's path.

    Raises SetupError when the wheel is not laid out as expected: better than an install that half works.
    """
    name, old_version, tags = wheel.name.removesuffix(".whl").split("-", 2)
    version = f"{old_version.split('+')[0]}+{LOCAL_VERSION}"
    old_info, new_info = f"{name}-{old_version}.dist-info/", f"{name}-{version}.dist-info/"
    additions = dict(ADDITIONS.get(name, {}))
    rows: list[tuple[str, str, str]] = []
    target = folder / f"{name}-{version}-{tags}.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as result:
        for entry in source.infolist():
            path = entry.filename
            if entry.is_dir() or is_library(path) or path == old_info + "RECORD":
                continue
            data = source.read(entry)
            if path == old_info + "METADATA":
                old_line = f"\nVersion: {old_version}\n".encode()
                if data.count(old_line) != 1:
                    raise SetupError(f"{wheel.name}: its METADATA does not state version {old_version} once")
                data = data.replace(old_line, f"\nVersion: {version}\n".encode())
            data += additions.pop(path, "").encode()
            if path.startswith(old_info):
                path = new_info + path.removeprefix(old_info)
            copy = zipfile.ZipInfo(path, entry.date_time)
            copy.external_attr, copy.compress_type = entry.external_attr, zipfile.ZIP_DEFLATED
            result.writestr(copy, data)
            rows.append(_record_row(path, data))
        if additions:
            raise SetupError(f"{wheel.name} has no {', '.join(additions)}: infra/repack_wheels.py does not fit it")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (new_info + "RECORD", "", "")])
        result.writestr(new_info + "RECORD", text.getvalue())
    return target
