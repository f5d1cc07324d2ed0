"""The reward plug-in: a plain function or class, found by its name in the recipe (docs/rewards.md).

Importing this file, or checking a recipe with it, imports no torch; a user's module may.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import RewardConfig


@dataclass(frozen=True)
class RewardFunction:
    """A reward that is ready to be called."""

    name: str
    """Names the term in metrics, tables and failures."""
    fn: Callable[..., Any]
    """Takes one `RewardInput`, or a list of them when `batched`; keywords of the recipe are bound already."""
    weight: float = 1.0
    timeout: float = 30.0
    """Seconds for one call: one sample, or the whole batch when `batched`."""
    batched: bool = False
    asynchronous: bool = False


def load_rewards(configs: Sequence[RewardConfig], base_dir: Path, section: str = "rewards") -> list[RewardFunction]:
    """All rewards of a section, ready to be called. `base_dir`: the recipe's folder. Raises `RecipeError`."""
    check_rewards(configs, base_dir, section)
    return [
        load_reward(
            config.fn,
            base_dir,
            kwargs=keywords_of(config),
            name=config.name,
            weight=config.weight,
            timeout=config.timeout,
            key=f"{section}[{index}]",
        )
        for index, config in enumerate(configs)
    ]


def check_rewards(configs: Sequence[RewardConfig], base_dir: Path, section: str = "rewards") -> None:
    """All that can be known of a recipe's rewards without making or calling one. Raises `RecipeError`."""
    if not configs:
        raise RecipeError(f"{section} is empty: give at least one, e.g. `- fn: rewards.asr:wer_reward`")
    seen: dict[str, int] = {}
    for index, config in enumerate(configs):
        key = f"{section}[{index}]"
        _check_call(resolve(config.fn, base_dir, f"{key}.fn"), keywords_of(config), key)
        name = term_name(config)
        if name in seen:
            other = f"{section}[{seen[name]}]"
            raise RecipeError(f"{key}.name is {name!r} like that of {other}: set `name` to tell them apart")
        seen[name] = index


def keywords_of(config: RewardConfig) -> dict[str, Any]:
    """What the function is given beside the sample: `kwargs`, and `judge` when there is one."""
    return {**config.kwargs, **({"judge": config.judge} if config.judge else {})}


def term_name(config: RewardConfig) -> str:
    """The name of a term in metrics: `name`, or that of its function."""
    return config.name or config.fn.rpartition(":")[2]


def load_reward(
    spec: str,
    base_dir: Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    weight: float = 1.0,
    timeout: float = 30.0,
    key: str = "reward",
) -> RewardFunction:
    """The reward that `spec` names. A class is instantiated with `kwargs`, a function gets them in each call.

    `spec`: `package.module:name`, or `path/to/file.py:name` relative to `base_dir`. It is batched when its
    first parameter is named `samples` or annotated `list` or `list[...]`. Raises `RecipeError` starting with
    `key`.
    """
    found = resolve(spec, base_dir, f"{key}.fn")
    keywords = dict(kwargs or {})
    parameter = _check_call(found, keywords, key)
    if inspect.isclass(found):
        fn = _instantiate(found, keywords, key)
        asynchronous = inspect.iscoroutinefunction(found.__call__)
    else:
        fn = functools.partial(found, **keywords) if keywords else found
        asynchronous = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    return RewardFunction(
        name=name or spec.rpartition(":")[2],
        fn=fn,
        weight=weight,
        timeout=timeout,
        batched=_takes_batch(parameter),
        asynchronous=asynchronous,
    )


def resolve(spec: str, base_dir: Path, key: str = "fn") -> Callable[..., Any]:
    """The function, class or callable object that `spec` names; its module is imported, nothing is called.

    Raises `RecipeError` starting with `key`: no such file, a module that does not import, no such name, not
    callable.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise RecipeError(f"{key} is {spec!r}: write `package.module:name` or `file.py:name`")
    module = _import(spec, source, base_dir, key)
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        close = difflib.get_close_matches(name, public, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"define {name!r} there or name another"
        raise RecipeError(f"{key} is {spec!r}: {source} has no {name!r}; {hint}")
    found = getattr(module, name)
    if not callable(found) or (inspect.isclass(found) and "__call__" not in dir(found)):
        kind = "a class without __call__" if inspect.isclass(found) else f"of type {type(found).__name__}"
        raise RecipeError(f"{key} is {spec!r}: {name!r} is {kind}, not callable; name one that is")
    return found


def _import(spec: str, source: str, base_dir: Path, key: str) -> ModuleType:
    is_file = source.endswith(".py") or "/" in source
    path = (base_dir / source).resolve()
    if is_file and not path.is_file():
        raise RecipeError(f"{key} is {spec!r}: there is no file {path}; the path is relative to the recipe")
    try:
        return _import_file(path) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # the boundary: a user's module may raise anything
        hint = "mend it" if is_file else "install it, or name a file as `file.py:name`"
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise RecipeError(f"{key} is {spec!r}: {source} cannot be imported ({what}); {hint}") from error


def _import_file(path: Path) -> ModuleType:
    # Named by path and content: terms from one file share a module, an edited file is read again in a REPL.
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:16]
    name = f"reward_file_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up here
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # a reward may import a file beside it, as a script may
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_call(found: Callable[..., Any], kwargs: Mapping[str, Any], key: str) -> inspect.Parameter:
    """The parameter that takes the sample. Raises `RecipeError` when `kwargs` and one sample do not fit."""
    if not inspect.isclass(found):
        signature = _signature(found, key)
        _bind(signature, (None,), kwargs, f"{key}.kwargs", "one sample and these keywords")
        return next(iter(signature.parameters.values()))
    _bind(_signature(found, key), (), kwargs, f"{key}.kwargs", "these keywords")
    call = _signature(found.__call__, key)
    _bind(call, (None, None), {}, f"{key}.fn", "one sample in __call__")
    return list(call.parameters.values())[min(1, len(call.parameters) - 1)]


def _signature(found: Callable[..., Any], key: str) -> inspect.Signature:
    try:
        return inspect.signature(found)
    except ValueError as error:  # some built-ins have none
        raise RecipeError(f"{key}.fn has no readable signature: wrap it in a `def` of your own") from error


def _bind(
    signature: inspect.Signature, values: tuple[Any, ...], kwargs: Mapping[str, Any], key: str, what: str
) -> None:
    try:
        signature.bind(*values, **kwargs)
    except TypeError as error:
        # Names only: a value may be a secret from the environment.
        given = f"{', '.join(kwargs)} given" if kwargs else "none given"
        message = f"{key}: the signature {signature} does not take {what} ({error}; {given})"
        raise RecipeError(f"{message}; make the two agree") from error


def _instantiate(cls: type, kwargs: Mapping[str, Any], key: str) -> Callable[..., Any]:
    try:
        instance: Callable[..., Any] = cls(**kwargs)
    except Exception as error:  # the boundary: a user's class may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{key}.fn: making {cls.__name__} with {', '.join(kwargs) or 'no keywords'} raised {what}; mend it"
        raise RecipeError(message) from error
    return instance


def _takes_batch(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):  # `from __future__ import annotations`
        annotated = annotation.replace("typing.", "").lower().partition("[")[0].strip() == "list"
    else:
        annotated = annotation is list or get_origin(annotation) is list
    return annotated or parameter.name == "samples"
