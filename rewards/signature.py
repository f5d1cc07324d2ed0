"""How a reward is written: whether it takes one sample or a batch, waits or not, and which keywords it has.

Read from the source alone where the module imports what takes seconds to import, from the object elsewhere.
"""

import ast
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from rlhf_platform.errors import RecipeError

HEAVY = {"torch", "torchaudio", "transformers", "vllm", "ray", "deepspeed", "tensorflow", "jax", "onnxruntime"} | {
    *("ctranslate2", "faster_whisper", "librosa", "scipy", "sklearn", "pandas")
}
"""Packages that take seconds to import, or a GPU."""


@dataclass(frozen=True)
class Written:
    """The signatures of a function, or of a class and its `__call__`, without `self`."""

    call: inspect.Signature
    """Of what gets the sample."""
    made: inspect.Signature | None
    """Of the class; None for a function."""
    asynchronous: bool

    @property
    def batched(self) -> bool:
        """The first parameter is named `samples`, or annotated `list` or `list[...]`."""
        parameter = next(iter(self.call.parameters.values()))
        annotation = parameter.annotation
        if isinstance(annotation, str):  # from source, or `from __future__ import annotations`
            is_list = annotation.replace("typing.", "").lower().partition("[")[0].strip() == "list"
        else:
            is_list = annotation is list or get_origin(annotation) is list
        return is_list or parameter.name == "samples"

    def check(self, keywords: Mapping[str, Any], key: str) -> None:
        """Raises `RecipeError` when the keywords of `key`, a term of a recipe, and one sample do not fit."""
        if self.made is None:
            _bind(self.call, (None,), keywords, f"{key}.kwargs", "one sample and these keywords")
        else:
            _bind(self.made, (), keywords, f"{key}.kwargs", "these keywords")
            _bind(self.call, (None,), {}, f"{key}.fn", "one sample in __call__")


def of_object(found: Callable[..., Any], key: str) -> Written:
    """Of a function, class or callable object. Raises `RecipeError` for a built-in that tells no signature."""
    if not inspect.isclass(found):
        waits = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
        return Written(_signature(found, key), None, waits)
    call = _signature(found.__call__, key)
    return Written(_without_self(call), _signature(found, key), inspect.iscoroutinefunction(found.__call__))


def of_source(source: str, name: str) -> Written | None:
    """Of `name` in a module's source that imports something heavy; None where only importing it can tell.

    Raises `SyntaxError`, and `ModuleNotFoundError` for a heavy package that is not installed.
    """
    tree = ast.parse(source)
    heavy = sorted(HEAVY & set(_imported(tree)))
    if not heavy:
        return None
    for package in heavy:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}")
    found = _defined(tree.body, name)
    if isinstance(found, ast.ClassDef):
        return _of_class(found)
    return Written(_read(found.args), None, isinstance(found, ast.AsyncFunctionDef)) if found else None


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _imported(tree: ast.Module) -> Iterator[str]:
    """The packages that are imported with the module, not only when a function runs."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _defined(body: list[ast.stmt], name: str) -> _Function | ast.ClassDef | None:
    """The one definition of `name`; a decorator may change what it takes."""
    found = [node for node in body if isinstance(node, _Function | ast.ClassDef) and node.name == name]
    return found[0] if len(found) == 1 and not found[0].decorator_list else None


def _of_class(found: ast.ClassDef) -> Written | None:
    call, made = _defined(found.body, "__call__"), _defined(found.body, "__init__")
    inherits = bool(found.bases or found.keywords)
    if not isinstance(call, _Function) or isinstance(made, ast.ClassDef) or (made is None and inherits):
        return None
    init = _without_self(_read(made.args)) if made else inspect.Signature()
    return Written(_without_self(_read(call.args)), init, isinstance(call, ast.AsyncFunctionDef))


class _Text:
    """A default or an annotation as it is written."""

    def __init__(self, node: ast.expr) -> None:
        self._text = ast.unparse(node)

    def __repr__(self) -> str:
        return self._text


def _read(arguments: ast.arguments) -> inspect.Signature:
    kinds = inspect.Parameter
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    kinds_of = [kinds.POSITIONAL_ONLY] * len(arguments.posonlyargs) + [kinds.POSITIONAL_OR_KEYWORD] * len(
        arguments.args
    )
    parameters = [_parameter(*each) for each in zip(plain, kinds_of, defaults, strict=True)]
    if arguments.vararg:
        parameters.append(_parameter(arguments.vararg, kinds.VAR_POSITIONAL, None))
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters += [_parameter(each, kinds.KEYWORD_ONLY, default) for each, default in named]
    if arguments.kwarg:
        parameters.append(_parameter(arguments.kwarg, kinds.VAR_KEYWORD, None))
    return inspect.Signature(parameters)


def _parameter(written: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    return inspect.Parameter(
        written.arg,
        kind,
        default=_Text(default) if default else inspect.Parameter.empty,
        annotation=ast.unparse(written.annotation).strip("'\"") if written.annotation else inspect.Parameter.empty,
    )


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _signature(found: Callable[..., Any], key: str) -> inspect.Signature:
    try:
        return inspect.signature(found)
    except ValueError as error:  # some built-ins have none
        raise RecipeError(f"{key}.fn has no readable signature: wrap it in a `def` of your own") from error


def _bind(
    signature: inspect.Signature, values: tuple[Any, ...], keywords: Mapping[str, Any], key: str, what: str
) -> None:
    try:
        signature.bind(*values, **keywords)
    except TypeError as error:
        # Names only: a value may be a secret from the environment.
        given = f"{', '.join(keywords)} given" if keywords else "none given"
        message = f"{key}: the signature {signature} does not take {what} ({error}; {given})"
        raise RecipeError(f"{message}; make the two agree") from error
