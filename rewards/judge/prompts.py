"""What a judge reads: versioned YAML files, checked when they are loaded, and filled in with a dialogue.

Everything that the policy or a user said is quoted: on one line, without the characters that could end the quotation or
that chat templates are made of. What it says is data to the judge, whatever it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from rewards.judge.cache import content_key
from rewards.judge.client import Message, Question
from rewards.judge.types import HIGHEST, LOWEST, Exchange
from rlhf_platform.errors import RecipeError

FOLDER = Path(__file__).parent / "prompts"
PAIRWISE, RUBRIC = "pairwise", "rubric"
LONGEST = 1000
"""Characters of anything that is quoted; a longer text is cut."""

_KEYS = {"kind": True, "system": True, "template": True, "ask": True, "reason": True, "turn": True, "roles": True}
_KEYS |= {"quotes": True, "labels": False, "examples": False}
_FIELDS = {
    PAIRWISE: {"persona", "history", "said", "first", "second"},
    RUBRIC: {"persona", "history", "said", "reply", "question", "anchors"},
}
_UNSPOKEN = str.maketrans(dict.fromkeys("<>[]{}|\\`", " "))
"""Left out of what is quoted: quotation marks of ours and the marks of chat templates, as <|im_end|> and [INST]."""


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt file."""

    name: str
    kind: str
    system: str
    template: str
    ask: str
    """Asks for the verdict: the end of the message, or a message of its own after reasoning."""
    reason: str
    """Asks for reasoning: the end of the message where there is some."""
    turn: str
    roles: Mapping[str, str]
    quotes: tuple[str, str]
    labels: Mapping[str, float]
    """Levels of a pairwise verdict, seen from the reply shown first; a rubric brings its own."""
    examples: tuple[Mapping[str, Any], ...]

    @property
    def digest(self) -> str:
        """Changes with everything that a judge reads of it."""
        return content_key(
            self.kind,
            self.system,
            self.template,
            self.ask,
            self.reason,
            self.turn,
            dict(self.roles),
            list(self.quotes),
            dict(self.labels),
            [dict(example) for example in self.examples],
        )

    def pairwise(self, exchange: Exchange, first: str, second: str, reasoning: bool = False) -> Question:
        """Asks which of two replies is better."""
        return self._question(exchange, {"first": first, "second": second}, {}, tuple(self.labels), reasoning)

    def rubric(
        self, exchange: Exchange, reply: str, question: str, anchors: Mapping[str, str], reasoning: bool = False
    ) -> Question:
        """Asks for the level of a reply. `anchors`: what each label means."""
        plain = {"question": question, "anchors": "\n".join(f"{label}: {text}" for label, text in anchors.items())}
        return self._question(exchange, {"reply": reply}, plain, tuple(anchors), reasoning)

    def quoted(self, text: str) -> str:
        """A text as the judge sees it."""
        left, right = self.quotes
        return f"{left}{plain(text)}{right}"

    def _question(
        self,
        exchange: Exchange,
        replies: Mapping[str, str],
        texts: Mapping[str, str],
        labels: Sequence[str],
        reasoning: bool,
    ) -> Question:
        messages: list[Message] = [{"role": "system", "content": self.system.strip()}]
        for example in self.examples:
            messages += self._example(example, reasoning)
        body = self._body(exchange, replies, texts)
        messages.append({"role": "user", "content": f"{body}\n{self.reason if reasoning else self.ask}"})
        return Question(tuple(messages), tuple(labels), self.ask if reasoning else "")

    def _example(self, example: Mapping[str, Any], reasoning: bool) -> list[Message]:
        history = tuple((turn["role"], turn["text"]) for turn in example.get("history", ()))
        exchange = Exchange(example["persona"], history, example["said"])
        replies = {name: example[name] for name in ("first", "second", "reply") if name in example}
        texts = {name: example[name] for name in ("question", "anchors") if name in example}
        body, verdict = self._body(exchange, replies, texts), str(example["verdict"])
        if not reasoning:
            return [{"role": "user", "content": f"{body}\n{self.ask}"}, {"role": "assistant", "content": verdict}]
        return [
            {"role": "user", "content": f"{body}\n{self.reason}"},
            {"role": "assistant", "content": example["reasoning"]},
            {"role": "user", "content": self.ask},
            {"role": "assistant", "content": verdict},
        ]

    def _body(self, exchange: Exchange, replies: Mapping[str, str], texts: Mapping[str, str]) -> str:
        turns = [self.turn.format(role=self.roles[role], text=self.quoted(text)) for role, text in exchange.history]
        filled = {
            "persona": self.quoted(exchange.persona),
            "history": "".join(f"{turn}\n" for turn in turns),
            "said": self.quoted(exchange.said),
        }
        filled |= {name: self.quoted(reply) for name, reply in replies.items()} | dict(texts)
        return self.template.format(**filled).strip()


def plain(text: str) -> str:
    """Text on one line, at most `LONGEST` characters, without what only a machine would write."""
    # Line ends too: in our templates a line is what a reply has to itself.
    line = " ".join("".join(c if c.isprintable() else " " for c in text.translate(_UNSPOKEN)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


@cache
def load_prompt(name: str, kind: str, key: str = "prompt") -> JudgePrompt:
    """The prompt `name` of the platform, or of the YAML file at that path, for `pairwise` or `rubric` judging.

    Raises `RecipeError`, starting with `key`, for a file that is missing, has unknown or missing keys or another kind.
    """
    file, values = read_yaml(name, FOLDER, key)
    check_keys(values, _KEYS, f"{file}")
    if values["kind"] != kind:
        raise RecipeError(f"{key} is {name!r}: a prompt of kind {values['kind']!r}; {kind!r} is needed here")
    fields = {field for _, field, _, _ in Formatter().parse(values["template"]) if field is not None}
    if fields != _FIELDS[kind]:
        raise RecipeError(f"{file}: template has {_braced(fields)}; it needs {_braced(_FIELDS[kind])}")
    if kind == PAIRWISE:
        _check_labels(values.get("labels") or {}, str(file))
    return JudgePrompt(
        name=Path(name).stem,
        kind=kind,
        system=values["system"],
        template=values["template"],
        ask=values["ask"],
        reason=values["reason"],
        turn=values["turn"],
        roles=values["roles"],
        quotes=(values["quotes"][0], values["quotes"][1]),
        labels={str(label): level for label, level in (values.get("labels") or {}).items()},
        examples=tuple(values.get("examples") or ()),
    )


def read_yaml(name: str, folder: Path, key: str) -> tuple[Path, dict[str, Any]]:
    """A file of ours by its name, or any by its path, and what it holds. Raises `RecipeError` starting with `key`."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    if not file.is_file():
        raise RecipeError(f"{key} is {name!r}: there is {known}, or name a YAML file")
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{key} is {name!r}: {file} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{key} is {name!r}: {file} holds no mapping")
    return file, values


def check_keys(values: Mapping[str, Any], known: Mapping[str, bool], where: str) -> None:
    """`known`: keys, and whether each is needed. Raises `RecipeError` starting with `where`."""
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise RecipeError(f"{where}: unknown key {', '.join(unknown)}; allowed {', '.join(known)}")
    missing = [key for key, needed in known.items() if needed and key not in values]
    if missing:
        raise RecipeError(f"{where}: {', '.join(missing)} is missing; add it")


def _check_labels(labels: Mapping[Any, Any], where: str) -> None:
    levels = list(labels.values())
    if len(labels) < 2 or not all(isinstance(level, int) and LOWEST <= level <= HIGHEST for level in levels):
        raise RecipeError(f"{where}: labels is {dict(labels)!r}; two or more with whole levels in -2..2 are needed")
    if sorted(levels) != sorted(-level for level in levels):
        raise RecipeError(f"{where}: labels has levels {sorted(levels)}; both orders need the same ones, as -1 and 1")


def _braced(names: set[str]) -> str:
    return " ".join(f"{{{name}}}" for name in sorted(names))
