"""The reward plug-in: a plain function or class, found by its name in the recipe (docs/rewards.md).

Importing this file, or checking a recipe with it, imports no torch.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards.signature import Written, of_object, of_source
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import RewardConfig

REMOTE = "rewards.remote.client:RemoteReward"
"""The reward that asks a server, for terms with a `url`."""
REMOTE_BATCH = 32
"""Samples in one request to a server, unless the recipe says how many."""
LONGEST_PAUSE = 5.0
"""Seconds before a request is made again, at most."""
AWAITS = 32
"""Calls of an async function that are awaited at a time, unless the recipe says how many."""


@dataclass(frozen=True)
class Term:
    """One reward of a recipe, with all that a process needs to call it."""

    config: RewardConfig
    name: str
    """Names the term in metrics, tables and failures."""
    key: str = "reward"
    """Where it stands in the recipe: `rewards[0]`."""
    base_dir: Path = Path()
    """What a file in `fn` is relative to: the recipe's folder."""
    seed: int = 0
    """Of the random generators in its processes."""
    token: str = field(default="", repr=False)
    """For the server at `url`."""

    def asking(self, judges: Mapping[str, Mapping[str, str]]) -> "Term":
        """The term with the address of its judge in place of the name, and the judge's other keywords, where `judges`
        has them: by name, `judge` and what else there is."""
        found = judges.get(self.config.judge)
        if found is None:
            return self
        others = {key: value for key, value in found.items() if key != "judge"}
        return replace(self, config=replace(self.config, judge=found["judge"], kwargs=others | self.config.kwargs))

    @property
    def fn(self) -> str:
        """The function that is called: the user's own, or ours that asks a server."""
        return REMOTE if self.config.url else self.config.fn

    @property
    def timeout(self) -> float:
        """Seconds for one call; of a server, with the client's own retries and pauses."""
        config = self.config
        return (1 + config.retries) * (config.timeout + LONGEST_PAUSE) if config.url else config.timeout

    @property
    def retries(self) -> int:
        """Times that a failed call is made again, from outside."""
        return 0 if self.config.url else self.config.retries

    @property
    def batch_size(self) -> int | None:
        """Samples in a call of a batched function; none: all at once."""
        return self.config.batch_size or (REMOTE_BATCH if self.config.url else None)

    @property
    def keywords(self) -> dict[str, Any]:
        """What the function is given beside the sample: `kwargs`, and `judge` when there is one."""
        config = self.config
        own = {**config.kwargs, **({"judge": config.judge} if config.judge else {})}
        if not config.url:
            return own
        server = {name: getattr(config, name) for name in ("url", "timeout", "retries", "send_audio")}
        return server | {"token": self.token, "kwargs": own}


@dataclass(frozen=True)
class RewardFunction:
    """A reward that is ready to be called."""

    fn: Callable[..., Any]
    """Takes one `RewardInput`, or a list of them when `batched`; keywords of the recipe are bound already."""
    batched: bool = False
    asynchronous: bool = False


def terms_of(
    configs: Sequence[RewardConfig],
    base_dir: Path,
    section: str = "rewards",
    seed: int = 0,
    tokens: Mapping[str, str] | None = None,
) -> list[Term]:
    """The terms of a recipe's section. `tokens`: values of the environment variables that `token_env` names."""
    return [
        Term(config, reward_name(config), f"{section}[{i}]", base_dir, seed, (tokens or {}).get(config.token_env, ""))
        for i, config in enumerate(configs)
    ]


def check_rewards(configs: Sequence[RewardConfig], base_dir: Path, section: str = "rewards") -> None:
    """All that can be known of a recipe's rewards without making or calling one. Raises `RecipeError`."""
    if not configs:
        raise RecipeError(f"{section} is empty: give at least one, e.g. `- fn: rewards.asr:wer_reward`")
    seen: dict[str, int] = {}
    for index, term in enumerate(terms_of(configs, base_dir, section)):
        if not term.config.url:  # a server says for itself whether it takes the keywords, before the run starts
            written(term).check(term.keywords, term.key)
        if term.name in seen:
            other = f"{section}[{seen[term.name]}]"
            raise RecipeError(f"{term.key}.name is {term.name!r} like that of {other}: set `name` to tell them apart")
        seen[term.name] = index


def written(term: Term) -> Written:
    """How a term's function is written. A module that imports what takes seconds is read and not imported.

    Raises `RecipeError` as `resolve`.
    """
    source, name = _halves(term.fn, f"{term.key}.fn")
    with _import_errors(term.fn, source, f"{term.key}.fn"):
        text = _source_of(source, term.base_dir)
        read = of_source(text, name) if text else None
    return read or of_object(resolve(term.fn, term.base_dir, f"{term.key}.fn"), term.key)


def load_reward(term: Term) -> RewardFunction:
    """The reward of a term. A class is instantiated with the keywords, a function gets them in each call.

    It is batched when its first parameter is named `samples` or annotated `list` or `list[...]`. Raises `RecipeError`
    starting with the term's key.
    """
    found = resolve(term.fn, term.base_dir, f"{term.key}.fn")
    keywords, how = term.keywords, of_object(found, term.key)
    how.check(keywords, term.key)
    if inspect.isclass(found):
        fn = _instantiate(found, keywords, term.key)
    else:
        fn = functools.partial(found, **keywords) if keywords else found
    return RewardFunction(fn, how.batched, how.asynchronous)


def resolve(spec: str, base_dir: Path, key: str = "fn") -> Callable[..., Any]:
    """The function, class or callable object that `spec` names; its module is imported, nothing is called.

    Raises `RecipeError` starting with `key`: no such file, a module that does not import, no such name, not
    callable.
    """
    source, name = _halves(spec, key)
    with _import_errors(spec, source, key):
        module = _import_file(_file(source, base_dir)) if _is_file(source) else importlib.import_module(source)
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


def _halves(spec: str, key: str) -> tuple[str, str]:
    """Module or file, and the name in it."""
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise RecipeError(f"{key} is {spec!r}: write `package.module:name` or `file.py:name`")
    return source, name


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _file(source: str, base_dir: Path) -> Path:
    path = (base_dir / source).resolve()
    if not path.is_file():
        raise RecipeError(f"there is no file {path}; it was looked for from {base_dir.resolve()}")
    return path


def _source_of(source: str, base_dir: Path) -> str:
    """The text of a module; "" for one without, as a compiled one or a namespace."""
    if _is_file(source):
        return _file(source, base_dir).read_text("utf-8")
    spec = importlib.util.find_spec(source)
    origin = spec.origin if spec else None
    return Path(origin).read_text("utf-8") if origin and origin.endswith(".py") else ""


@contextmanager
def _import_errors(spec: str, source: str, key: str) -> Iterator[None]:
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"{key} is {spec!r}: {error}") from None
    except (Exception, SystemExit) as error:  # the boundary: a user's module may raise anything
        hint = "mend it" if _is_file(source) else "install it, or name a file as `file.py:name`"
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


def _instantiate(cls: type, kwargs: Mapping[str, Any], key: str) -> Callable[..., Any]:
    try:
        instance: Callable[..., Any] = cls(**kwargs)
    except Exception as error:  # the boundary: a user's class may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{key}.fn: making {cls.__name__} with {', '.join(kwargs) or 'no keywords'} raised {what}; mend it"
        raise RecipeError(message) from error
    return instance
