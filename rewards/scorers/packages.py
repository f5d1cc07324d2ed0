"""The packages that carry the scorers' weights."""

from importlib.util import find_spec

from rlhf_platform.errors import RecipeError


def require(module: str) -> None:
    """Raises `RecipeError` when the package that installs `module` is not there. Imports nothing."""
    if find_spec(module) is None:
        raise RecipeError(
            f"rewards: a scorer of speech needs the package {module!r}, which is not installed; "
            "run: pip install 'rlhf-platform[speech]'"
        )
