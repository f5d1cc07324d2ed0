"""Every command, YAML and Python block of the README, CONTRIBUTING, docs/ and the recipes' headers does what it says.

Commands are found in the files themselves: lines of ```bash blocks, `inline code` that starts with a program's name,
and the `# Smoke:` and `# Full scale:` lines of recipes. Each is matched by one of RULES, or the test fails.
"""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
from omegaconf import OmegaConf
from typer.testing import CliRunner

from rlhf_platform.cli import init
from rlhf_platform.cli.health import stack
from rlhf_platform.cli.health.check import Check, Status
from rlhf_platform.cli.main import app
from rlhf_platform.data import demo
from rlhf_platform.data.dialogues import Plan as DialoguePlan
from rlhf_platform.data.dialogues import build_dialogues
from rlhf_platform.data.digits import Plan, build_digits
from rlhf_platform.data.judge_tasks import demo_pairs
from rlhf_platform.data.labelled import write_labelled
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.data.prompts import Plan as PromptsPlan
from rlhf_platform.data.prompts import build_prompts
from rlhf_platform.data.speech import Plan as SpeechPlan
from rlhf_platform.data.speech import build_speech
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.recipe.load import load_recipe
from tests.rewards.remote.serving import certificate
from tests.runs import write_run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
LANGUAGES = {"bash", "python", "yaml", "json", "text"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = r"vllm |rlhf doctor|python benchmarks/|.*from_pretrained"
"""What takes seconds to import."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def file(self) -> str:
        """The name that the block gives itself in a comment on its first line: `# my.yaml`."""
        named = re.match(r"# ([\w./]+\.\w+)\n", self.text)
        return named[1] if named else ""


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def commands(page: Path) -> list[str]:
    """All commands of a page or a recipe, each once."""
    if page.suffix == ".yaml":
        header = "".join(line.lstrip("#") for line in page.open() if line.startswith("#"))
        found = re.findall(r"^ *(?:Smoke|Full scale): +((?:.*\\\n)*.*)$", header, re.MULTILINE)
    else:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        inline = re.findall(r"`([^`]+)`", prose)
        found = [text for text in inline if re.match(rf"(?:{'|'.join(PROGRAMS)}) ", text)]
        for block in blocks(page):
            found += re.sub(r"\\\n *", " ", block.text).splitlines() if block.language == "bash" else []
    return [" ".join(text.replace("\\\n", " ").split()) for text in dict.fromkeys(found) if text.strip()]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "my_pairs.jsonl"
    write_labelled(path, demo_pairs())
    return path


@pytest.fixture
def place(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory like a user's, with the repository's recipes and a small manifest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copytree(ROOT / "recipes", "recipes", ignore=shutil.ignore_patterns("__pycache__", "*.flac", "*.zip"))
    shutil.copytree(ROOT / "docs", "docs")
    sf.write("clip.wav", np.zeros(8_000, np.int16), 16_000)
    for number, name in enumerate(("my.jsonl", "clips.jsonl", "my/manifest.jsonl")):
        path = Path(name).absolute()
        path.parent.mkdir(exist_ok=True)
        row = partial(Row, path, number, audio=tmp_path / "clip.wav", language="en", speaker="me", duration=0.5)
        write_manifest(path, [row(s, text=s, split=s, licence="CC0-1.0") for s in ("train", "rl", "heldout")])
    shutil.copy(labelled, "my_pairs.jsonl")
    for name in ("first", "second"):
        run = write_run(Path("runs", name), recipe={"learner": {"lora": {"rank": 8}}})
        step = run / "checkpoints" / "step-00010"
        for file in (run / "checkpoint/config.json", run / "adapter/adapter_config.json", step / "policy/config.json"):
            file.parent.mkdir(parents=True)
            file.write_text("{}")
        (step / "manifest.json").write_text("{}")
    return tmp_path


def write_files(page: Path) -> None:
    """The files that a page's blocks spell out, in the working directory; every page may name the example reward."""
    shutil.copy(ROOT / "recipes/asr/my_rewards.py", "my_rewards.py")
    for block in blocks(page) if page.suffix == ".md" else []:
        if block.file:
            Path(block.file).write_text(block.text)


def rlhf(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`rlhf ...` for real, but `run` as `validate`: tests/e2e/test_asr_quickstart.py runs the quickstart for real,
    with Ctrl-C, a reward from a file, overrides and its checkpoint. A demo set is built with few clips, and a Ray that
    `doctor` asks for is there: tests/cli/test_doctor.py asks a real one."""
    if arguments[:1] and arguments[0] in ("submit", "status", "logs", "stop"):
        of_a_cluster(arguments, monkeypatch)
        return
    if arguments[:1] == ["rewards"]:
        of_rewards(arguments, monkeypatch)
        return
    monkeypatch.setattr(demo, "build_digits", partial(build_digits, plan=Plan(2, 2, 1, 1, 1, 1)))
    monkeypatch.setattr(demo, "build_prompts", partial(build_prompts, plan=PromptsPlan(prompts=4)))
    monkeypatch.setattr(demo, "build_speech", partial(build_speech, plan=SpeechPlan(1, 1, 1)))
    dialogues = DialoguePlan(1, 1, 1, pairs={"train": 2})
    monkeypatch.setattr(demo, "build_dialogues", partial(build_dialogues, plan=dialogues))
    monkeypatch.setattr(demo, "EXCHANGES", dialogues)
    if arguments[:2] == ["data", "describe"]:
        spoken(Path("my/manifest.jsonl"))
    monkeypatch.setattr(stack, "ray", lambda *_: Check("Ray", Status.OK, ""))
    if "my-asr/recipe.yaml" in arguments:
        init.write("asr", Path("my-asr"), None)  # as a line before it does
    if "resume" in arguments or "eval" in arguments:
        without_actors(monkeypatch)
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    arguments = ["validate" if argument == "run" else argument for argument in arguments if argument != "--dry-run"]
    bare = {*arguments} <= {"validate", "data", "build", "check", "init", "compare", "export", "resume", "show", "eval"}
    bare |= {*arguments} <= {"arena", "pairs", "import", "judge", "calibrate", "--attacks", "gate", "merge"}
    result = CliRunner().invoke(app, [*arguments, "--help"] if bare else arguments)
    assert result.exit_code == 0, result.output


def spoken(manifest: Path) -> None:
    """A manifest of a clip in which its text is said."""
    speech = speak(Voice("hibari", rate=1.0), "open the red box", 16_000)
    clip = manifest.with_name("spoken.wav").absolute()
    sf.write(clip, speech, 16_000)
    seconds = len(speech) / 16_000
    write_manifest(
        manifest,
        [Row(manifest.absolute(), 1, "one", clip, "open the red box", "en", "me", seconds, "train", "CC0-1.0")],
    )


def without_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rlhf resume` and `rlhf eval` up to what they hand over; tests/e2e/test_resume.py goes through with both."""
    resume, evaluate = ModuleType("rlhf_platform.train.resume"), ModuleType("rlhf_platform.train.evaluate")

    def is_there(named: Path, parent: Path, _: object) -> None:
        assert any((path / "status.json").is_file() for path in (named, parent / named))

    resume.resume = is_there  # type: ignore[attr-defined]
    evaluate.evaluate_checkpoint = lambda loaded, checkpoint: None  # type: ignore[attr-defined]
    for module in (resume, evaluate):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def of_rewards(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`rlhf rewards test` on a text for one clip, `serve` as far as it would listen; on a server, or bare, --help.
    tests/cli/test_rewards.py has a server."""

    async def listen(*_: object) -> None:
        pass

    monkeypatch.setattr("rewards.remote.server._serve", listen)
    monkeypatch.setenv("REWARD_TOKEN", "as exported by a line before it")
    Path("hypotheses.jsonl").write_text('{"id": "train", "text": "alpha"}\n')
    shutil.copy(certificate(Path()), "server.key")  # each file holds both
    bare = len(arguments) < 3 or arguments[2].startswith("http")
    result = CliRunner().invoke(app, [*arguments, "--help"] if bare else arguments)
    assert result.exit_code == 0, result.output


def of_a_cluster(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`rlhf submit`, `status`, `logs` and `stop` for real as far as Ray's dashboard, which is not there. A manifest, a
    local run and --help need none. tests/jobs/test_submission.py and tests/e2e/test_submit.py have a real one."""
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setattr("rlhf_platform.jobs.client.DEFAULT_ADDRESS", nowhere)
    command = arguments[: arguments.index(">")] if ">" in arguments else arguments
    command = [argument.replace("http://127.0.0.1:8265", nowhere) for argument in command]
    if not any(not argument.startswith("--") for argument in command[1:]):
        command.append("--help")
    asks_ray = not {"--kuberay", "--help"} & set(command) and not Path(command[1], "status.json").is_file()
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, "nothing answers there" in result.output) == (2 * asks_ray, asks_ray), result.output


def docker(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """There is no Docker: the file is there and has the arguments. tests/infra/test_cluster_files.py reads it."""
    file = (ROOT / arguments[arguments.index("-f") + 1]).read_text()
    given = [arguments[i + 1].partition("=")[0] for i, argument in enumerate(arguments) if argument == "--build-arg"]
    assert set(given) <= set(re.findall(r"^ARG (\w+)", file, re.MULTILINE))


def sbatch(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no SLURM: the script is there, and `rlhf run` takes the rest (tests/infra/test_cluster_files.py)."""
    script = next(i for i, argument in enumerate(arguments) if not argument.startswith("--"))
    assert (ROOT / arguments[script]).is_file()
    rlhf(["run", *arguments[script + 1 :], "cluster.address=auto"], monkeypatch)


def make(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    result = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@cache
def options_of(script: str) -> set[str]:
    """The options that a script's `--help` names; it imports what the script needs, which takes its time."""
    command = [sys.executable, ROOT / script, "--help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[\w-]+", printed.stdout))


def python(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """Modules for real, as far as they say how they are used; scripts by their `--help`, with all options in it."""
    if arguments[:2] == ["-m", "rlhf_platform.data.extract_asterisk"]:
        ended = subprocess.run([sys.executable, *arguments[:2]], cwd=ROOT, capture_output=True, text=True, check=False)
        usage = re.findall(r"\b[A-Z]+_[A-Z]+\b", ended.stderr)
        # tests/data/test_extract_asterisk.py runs it on recordings.
        assert len(usage) == len(arguments[2:]), ended.stderr
    elif arguments[0] == "-m":
        module, target = arguments[1], arguments[-1]
        printed = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)
        assert arguments[2:-1] == [">"]
        assert printed.stdout == Path(target).read_text(), f"{target} is not what {module} writes"
    else:
        assert set(arguments[1:]) <= options_of(arguments[0])


def clicked(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's own click parser takes the arguments; a job's entrypoint is a command by itself."""
    for pattern in (argument for argument in arguments if "*" in argument):
        Path(pattern.replace("*", "1")).mkdir(parents=True)  # what the shell would find after a run
        arguments = [argument.replace("*", "1") for argument in arguments]
    (script,) = (found for found in entry_points(group="console_scripts") if found.name == program)
    command = script.load()
    if program == "ray":
        from ray.scripts.scripts import cli as command
    while commands := getattr(command, "commands", None):
        name, *arguments = arguments
        assert name in commands, f"{program} has no {name}"
        command = commands[name]
    context = command.make_context(program, arguments)
    if "entrypoint" in context.params:
        run(shlex.join(context.params["entrypoint"]), monkeypatch)


def vllm(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    assert arguments[0] == "serve"
    make_arg_parser(FlexibleArgumentParser()).parse_args(arguments[1:])


def pytest_(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """The files are there and the markers are declared."""
    declared = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    markers = {arguments[i + 1] for i, argument in enumerate(arguments) if argument == "-m"}
    assert {word for marker in markers for word in marker.split()} - {"and", "or", "not"} <= declared
    paths = [argument for argument in arguments if not argument.startswith("-") and argument not in markers]
    assert all((ROOT / path).exists() for path in paths), paths


def pip(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """`pip install '.[extra]'` names an extra of ours."""
    (extra,) = re.findall(r"^install \.\[(\w+)\]$", " ".join(arguments))
    assert extra in PROJECT["project"]["optional-dependencies"]


def shell(_: list[str], __: pytest.MonkeyPatch) -> None:
    """Needs what a test does not have (a package archive, an interactive shell, Kubernetes): its syntax was checked."""


Rule = Callable[[list[str], pytest.MonkeyPatch], None]
RULES: dict[str, Rule] = {
    "rlhf": rlhf,
    "make": make,
    "python": python,
    "ray": partial(clicked, "ray"),
    "wandb": partial(clicked, "wandb"),
    "vllm": vllm,
    "pytest": pytest_,
    "pip": pip,
    "docker": docker,
    "sbatch": sbatch,
    **dict.fromkeys(("source", "export", "apt-get", "dpkg-deb", "kubectl"), shell),
}
PROGRAMS = RULES.keys()


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the rule for the command's program says. Words in capitals stand for the reader's own."""
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(command.replace("HOST", "127.0.0.1"), comments=True)
    program = words[0].removeprefix(".venv/bin/")
    assert program in RULES, f"no rule runs this command: {command}"
    RULES[program](words[1:], monkeypatch)


def each(of: Callable[[Path], list[str]], pages: list[Path]) -> list[object]:
    """Parameters (page, text); what imports for long is marked slow."""
    slow, found = re.compile(HEAVY, re.DOTALL), [(page, text) for page in pages for text in of(page)]
    names = [f"{name_of(page)}: {' '.join(text.split())[:60]}" for page, text in found]
    marks = [[pytest.mark.slow] if slow.match(text) else [] for _, text in found]
    return [pytest.param(*pair, id=name, marks=mark) for pair, name, mark in zip(found, names, marks, strict=True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, as it imports its command line
@pytest.mark.parametrize(("page", "command"), each(commands, PAGES + RECIPES))
def test_every_command_is_run(page: Path, command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(page)
    run(command, monkeypatch)


def test_a_command_without_a_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="no rule runs this command: helm install rlhf"):
        run("helm install rlhf", monkeypatch)


def test_every_runnable_recipe_says_its_smoke_and_its_full_scale_command() -> None:
    runnable = [recipe for recipe in RECIPES if "name" in OmegaConf.load(recipe)]
    assert [len(commands(recipe)) for recipe in runnable] == [2] * len(runnable)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_every_test_named_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    tests = [ROOT / path for path in re.findall(r"`(tests/[\w/.]+)`", text)]
    assert [str(path) for path in links + tests if not path.exists()] == []


def yaml_blocks(page: Path) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "yaml"]


@pytest.mark.parametrize(("page", "text"), each(yaml_blocks, PAGES))
def test_a_recipe_or_a_part_of_one_loads(page: Path, text: str, place: Path) -> None:
    whole = "extends:" in text
    Path("block.yaml").write_text(text if whole else "extends: recipes/asr/quickstart.yaml\n" + text)
    load_recipe("block.yaml")


def python_blocks(page: Path) -> list[str]:
    """What a reader types in a row is one text: a page's REPL examples together, every other block by itself."""
    found = [block.text for block in blocks(page) if block.language == "python"]
    session = "\n".join(text for text in found if ">>>" in text)
    return [text for text in found if ">>>" not in text] + ([session] if session else [])


@pytest.mark.parametrize(("page", "text"), each(python_blocks, PAGES))
def test_python_runs_and_prints_what_is_shown(
    page: Path, text: str, place: Path, request: pytest.FixtureRequest
) -> None:
    write_files(page)
    for folder in re.findall(r'from_pretrained\("(.+?)"\)', text):
        shutil.copytree(request.getfixturevalue("tiny_checkpoint"), folder, dirs_exist_ok=True)
    if ">>>" not in text:
        exec(compile(text, name_of(page), "exec"), {})
        return
    session = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(session).failed == 0
