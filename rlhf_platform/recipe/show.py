"""The whole recipe as YAML, each value with where it came from as a comment."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf

from rlhf_platform.recipe.load import LoadedRecipe

_COLUMN = 44
"""Where the comments start; a longer value pushes its own to the right."""


def render(loaded: LoadedRecipe, changed: bool = False) -> str:
    """YAML that loads again as the same recipe; `changed`: without the defaults. Secrets stay `${oc.env:NAME}`."""
    tree = OmegaConf.to_container(OmegaConf.create(loaded.yaml), resolve=False)
    assert isinstance(tree, Mapping)
    return "\n".join(_lines(tree, "", "", loaded.origins, changed)) + "\n"


def _lines(
    tree: Mapping[Any, Any], prefix: str, indent: str, origins: Mapping[str, str], changed: bool
) -> Iterator[str]:
    for name, value in tree.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and full not in origins:
            inner = list(_lines(value, f"{full}.", f"{indent}  ", origins, changed))
            yield from [f"{indent}{name}:", *inner] if inner else []
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{indent}{name}:"
            for index, item in enumerate(value):
                inner = list(_lines(item, f"{full}[{index}].", f"{indent}    ", origins, changed))
                yield f"{indent}  - {inner[0].lstrip()}"
                yield from inner[1:]
        elif full in origins or not changed:
            # A bare value ends with YAML's document mark.
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).split("\n")[0]
            text = f"{indent}{name}: {text}"
            yield f"{text:{_COLUMN}}  # {_from(origins.get(full, 'default'))}"


def _from(origin: str) -> str:
    return origin.removeprefix("on the ")
