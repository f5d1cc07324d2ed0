"""`rlhf rewards serve` and `rlhf rewards test`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.cli.reward_tables import distribution, histogram
from tests.rewards.remote.serving import certificate, reward_server

MINE = """
def length(sample, factor=1):
    if sample.text == "bad":
        raise ValueError("as asked")
    return factor * len(sample.text)

def parts(sample):
    return {"chars": len(sample.text), "seconds": sample.duration}

def never(sample):
    return None

def size(sample):
    return len(open(sample.audio, "rb").read())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with functions, a manifest of two clips and some hypotheses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REWARD_TOKEN", raising=False)
    Path("mine.py").write_text(MINE)
    sf.write("clip.wav", np.zeros(8_000, np.int16), 16_000)
    row = {"audio": "clip.wav", "text": "alpha", "language": "en", "speaker": "me", "duration": 0.5, "split": "train"}
    rows = [row | {"id": name, "licence": "CC0-1.0"} for name in ("a", "b")]
    Path("m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_hypotheses([("a", "four"), ("b", "bad"), ("a", "[x] longest"), ("b", "")])
    return tmp_path


def write_hypotheses(lines: Sequence[tuple[str, str]]) -> None:
    Path("h.jsonl").write_text("".join(json.dumps({"id": name, "text": text}) + "\n\n" for name, text in lines))


def tried(fn: str, *options: str) -> tuple[int, str, str]:
    command = ["rewards", "test", fn, "--manifest", "m.jsonl", "--hypotheses", "h.jsonl", *options]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.stdout, result.stderr


def test_the_answers_are_described(folder: Path) -> None:
    code, out, _ = tried("mine.py:length", "--show", "1")
    assert code == 0
    assert out.startswith("length: 4 samples, 3 scored, 1 failed\n")
    # 0, 4 and 11: the mean is 5, the standard deviation the root of (25 + 1 + 36) / 3.
    assert re.search(r"^length +3 +5 +4.546 +0 +2 +4 +7.5 +11 +█  █     █$", out, re.MULTILINE)
    assert re.search(r"^raised +1 +ValueError: as asked \(.*mine.py:4\)$", out, re.MULTILINE)
    highest, lowest = out.split("\nhighest\n")[1].split("\nlowest\n")
    assert re.search(rf"^ +11 +a +\[x\] longest +alpha +{folder}/clip.wav$", highest, re.MULTILINE)
    assert re.search(rf"^ +0 +b +alpha +{folder}/clip.wav$", lowest, re.MULTILINE)
    assert re.search(r"^time per sample: median .* m?s, 95 % .* m?s, max .* m?s; in all .* m?s$", out, re.MULTILINE)


def test_a_dict_is_described_part_by_part_and_counts_as_its_sum(folder: Path) -> None:
    code, out, _ = tried("mine.py:parts", "--show", "0")
    assert code == 0
    assert re.search(r"^parts +4 +5 ", out, re.MULTILINE)
    assert re.search(r"^parts.chars +4 +4.5 ", out, re.MULTILINE)
    assert re.search(r"^parts.seconds +4 +0.5 +0 +0.5 +0.5 +0.5 +0.5 +0.5$", out, re.MULTILINE)
    assert "highest" not in out


def test_keywords_reach_the_function_and_many_samples_are_all_scored(folder: Path) -> None:
    write_hypotheses([("a", "x" * (number % 3)) for number in range(150)])
    code, out, _ = tried("mine.py:length", "--kwargs", '{"factor": 10}', "--concurrency", "2")
    assert code == 0
    assert re.search(r"^length +150 +10 ", out, re.MULTILINE)


def test_it_says_with_its_exit_code_that_every_sample_failed(folder: Path) -> None:
    code, out, _ = tried("mine.py:never")
    assert code == 1
    assert re.search(r"^not_a_number +4 +returned None", out, re.MULTILINE)


def test_bad_lines_are_told_all_at_once(folder: Path) -> None:
    lines = [
        '{"id": "a", "text": "fine"}',
        '{"id": "c", "text": ""}',
        "{",
        "[]",
        '{"id": "a"}',
        '{"id": 1, "text": ""}',
    ]
    Path("h.jsonl").write_text("\n".join([*lines, *["NaN"] * 20]))
    code, out, err = tried("mine.py:length")
    assert (code, out) == (2, "")
    assert err.splitlines()[:6] == [
        "h.jsonl: 25 lines cannot be used",
        "h.jsonl line 2: id 'c' is not in the manifest",
        "h.jsonl line 3: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        'h.jsonl line 4: a line is an object: {"id": ..., "text": ...}',
        "h.jsonl line 5: no 'text'",
        "h.jsonl line 6: id is 1, not text",
    ]
    assert err.splitlines()[-1] == "... and 15 more"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.py:length", "--kwargs", "{factor: 1}"], "--kwargs is '{factor: 1}': not JSON"),
        (["mine.py:length", "--kwargs", "[1]"], "--kwargs is '[1]': not an object; write a JSON object"),
        (["mine.py:length", "--kwargs", '{"no": 1}'], "unexpected keyword argument 'no'"),
        (["mine.py:gone"], "mine.py has no 'gone'"),
        (["http://127.0.0.1:9/score"], "reward.url is 'http://127.0.0.1:9/score': nothing answers there"),
        (["http://127.0.0.1:9/score", "--token-env", "MINE"], "--token-env is MINE: that environment variable is not"),
        (["mine.py:length", "--hypotheses", "no.jsonl"], "--hypotheses is 'no.jsonl': there is no such file"),
        (["mine.py:length", "--manifest", "no.jsonl"], "no.jsonl: no such manifest"),
    ],
)
def test_a_mistake_is_a_line_and_exit_code_2(arguments: list[str], said: str, folder: Path) -> None:
    code, out, err = tried(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_file_without_hypotheses_is_a_mistake(folder: Path) -> None:
    Path("h.jsonl").write_text("\n")
    assert tried("mine.py:length")[::2] == (2, 'h.jsonl: empty: write a line {"id": ..., "text": ...} for each text\n')


def test_a_server_is_tried_as_a_function_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reward_server("mine.py:size", folder, "s3cret") as url:
        code, _, err = tried(url)
        assert (code, "it asks for a token" in err) == (2, True)
        monkeypatch.setenv("MINE", "s3cret")
        code, out, _ = tried(url, "--token-env", "MINE", "--send-audio")
    assert code == 0
    # 44 bytes of header, then 8000 samples of 2 bytes.
    assert re.search(r"^score +4 +1.604e\+04 +0 ", out, re.MULTILINE)


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "rewards", "serve", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate(timeout=120)


@pytest.mark.parametrize(("ended_by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_served_function_answers_until_it_is_ended(ended_by: signal.Signals, code: int, folder: Path) -> None:
    with serving("mine.py:length", "--port", "0", "--kwargs", '{"factor": 2}') as (process, line):
        url = re.fullmatch(r"length: (http://127\.0\.0\.1:\d+/score)\n", line)
        assert url
        assert tried(url[1], "--show", "0")[0] == 0
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
        assert len(pids) == 1
        process.send_signal(ended_by)
        assert process.wait(120) == code
        assert not Path("/proc", pids[0]).exists()


def test_a_function_is_served_by_tls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(folder)
    with serving("mine.py:length", "--port", "0", "--tls-cert", str(file)) as (_, line):
        url = re.fullmatch(r"length: (https://127\.0\.0\.1:\d+/score)\n", line)
        assert url
        code, _, err = tried(url[1])
        assert (code, "certificate" in err) == (2, True)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert tried(url[1], "--show", "0")[0] == 0


def test_what_cannot_be_served_is_a_line_and_exit_code_2(folder: Path) -> None:
    with serving("mine.py:length", "--port", "0") as (_, line):
        port = line.rpartition(":")[2].partition("/")[0]
        for options, said in (
            (["mine.py:length", "--port", port], f"--host 127.0.0.1 --port {port}: "),
            (
                ["mine.py:length", "--host", "0.0.0.0"],
                "--host is 0.0.0.0: others can reach that, and there is no token",
            ),
            (["mine.py:gone"], "mine.py has no 'gone'"),
            (["http://127.0.0.1:9/score"], "that is a server already"),
            (["mine.py:length", "--tls-key", "k.pem"], "there is no --tls-cert that it is the key of"),
            (["mine.py:length", "--tls-cert", "mine.py"], "--tls-cert mine.py: "),
            (["mine.py:length", "--tls-cert", "gone.pem"], "--tls-cert gone.pem: No such file"),
            (["mine.py:length", "--token-env", "MINE"], "--token-env is MINE: that environment variable is not set"),
        ):
            result = CliRunner().invoke(app, ["rewards", "serve", *options])
            assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_a_histogram_shows_what_is_there() -> None:
    assert histogram([0.0] * 100 + [10.0]) == "█        ▁"
    assert histogram(range(11)) == "▄▄▄▄▄▄▄▄▄█"
    assert histogram([3.0, 3.0]) == ""
    assert histogram([-1e308, 1e308]) == ""
    assert distribution([-0.0])[:3] == (1, "0", "0")
