"""Law 2: a failure is data, never a zero. Law 3: a call is bounded, and one that hangs blocks nobody."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rewards.answers import Answer
from rewards.calling import ASYNC_AT_ONCE, RewardCaller
from rewards.plugin import load_reward
from rewards.types import RewardInput
from rlhf_platform.types import Failed


def samples(*texts: str) -> list[RewardInput]:
    return [RewardInput(prompt_id=str(i), text=text) for i, text in enumerate(texts)]


def call(folder: Path, code: str, inputs: list[RewardInput], timeout: float = 5.0) -> list[Answer]:
    (folder / "mine.py").write_text(code)
    caller = RewardCaller(load_reward("mine.py:reward", folder, timeout=timeout))
    answers = caller.call(inputs)
    caller.close()
    return answers


def kinds(answers: list[Answer]) -> list[Any]:
    return [a.kind if isinstance(a, Failed) else a for a in answers]


FORMS = {
    "sync": "def reward(sample):\n    return one(sample)\n",
    "async": "async def reward(sample):\n    return one(sample)\n",
    "batched": "def reward(samples):\n    return [one(s) for s in samples]\n",
    "async batched": "async def reward(samples):\n    return [one(s) for s in samples]\n",
    "class": "class Form:\n    def __call__(self, sample):\n        return one(sample)\nreward = Form()\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_answers_in_order_and_tells_numbers_from_the_rest(tmp_path: Path, form: str) -> None:
    one = (
        "import numpy as np\n"
        "def one(sample):\n"
        "    return {'three': 3, 'half': np.float32(0.5), 'none': None, 'nan': np.nan, 'inf': -np.inf,\n"
        "            'str': '1', 'bool': True, 'huge': 10**400, 'dict': {'a': 1, 'b': 2.5}, 'empty': {},\n"
        "            'bad part': {'a': 1, 'b': None}, 'list': [1.0]}[sample.text]\n"
    )
    texts = ["three", "half", "none", "nan", "inf", "str", "bool", "huge", "dict", "empty", "list"]
    assert kinds(call(tmp_path, one + form, samples(*texts, "bad part"))) == [
        3.0,
        0.5,
        *["not_a_number"] * 6,
        {"a": 1.0, "b": 2.5},
        "not_a_number",
        "wrong_shape",
        "not_a_number",
    ]


def test_an_exception_fails_its_own_sample_and_says_where(tmp_path: Path) -> None:
    code = "def reward(sample):\n    return 1 / len(sample.text)\n"
    good, bad = call(tmp_path, code, samples("ab", ""))
    assert good == 0.5
    assert isinstance(bad, Failed)
    assert (bad.kind, bad.term) == ("raised", "reward")
    assert bad.message == f"ZeroDivisionError: division by zero ({tmp_path}/mine.py:2)"


@pytest.mark.parametrize("form", ["def reward(s)", "async def reward(s)", "def reward(samples)"])
@pytest.mark.parametrize(
    "statement",
    ["raise SystemExit(1)", "raise KeyboardInterrupt", "raise TimeoutError('server')", "raise Unprintable"],
)
def test_whatever_is_raised_is_the_samples_failure(tmp_path: Path, form: str, statement: str) -> None:
    code = f"class Unprintable(Exception):\n    def __str__(self): 1 / 0\n{form}:\n    {statement}\n"
    assert kinds(call(tmp_path, code, samples("a", "b"))) == ["raised", "raised"]


@pytest.mark.parametrize("expression", ["[1.0]", "1.0", "None", "'ab'", "{'a': 1, 'b': 2}", "(x for x in (1, 2))"])
def test_a_batch_of_another_shape_fails_every_sample(tmp_path: Path, expression: str) -> None:
    code = f"def reward(samples):\n    return {expression}\n"
    assert kinds(call(tmp_path, code, samples("a", "b"))) == ["wrong_shape"] * 2


def test_an_array_is_a_batch_and_its_bad_items_fail_alone(tmp_path: Path) -> None:
    code = "import numpy as np\ndef reward(samples):\n    return np.array([1.0, np.nan, 2.0])\n"
    assert kinds(call(tmp_path, code, samples("a", "b", "c"))) == [1.0, "not_a_number", 2.0]


def test_no_samples_call_nothing(tmp_path: Path) -> None:
    assert call(tmp_path, "def reward(samples):\n    raise AssertionError\n", []) == []


def test_a_hanging_call_fails_its_sample_alone_and_in_time(tmp_path: Path) -> None:
    code = (
        "import threading\nrelease = threading.Event()\n"
        "def reward(sample):\n"
        "    if sample.text == 'hang': release.wait(30)\n"
        "    return 1.0\n"
    )
    (tmp_path / "mine.py").write_text(code)
    reward = load_reward("mine.py:reward", tmp_path, timeout=0.3)
    caller = RewardCaller(reward)
    before = time.monotonic()
    first, hung, last = caller.call(samples("a", "hang", "b"))
    assert time.monotonic() - before < 5
    assert (first, last) == (1.0, 1.0)
    assert hung == Failed("timeout", "no answer within 0.3 s; the call was abandoned", "reward")
    assert caller.call(samples("c")) == [1.0]
    reward.fn.__globals__["release"].set()
    caller.close()
    wait_until_gone("reward reward")


def wait_until_gone(name: str) -> None:
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, f"a thread {name!r} is left behind"
        time.sleep(0.01)


def test_a_hanging_batch_fails_as_a_whole(tmp_path: Path) -> None:
    code = "import time\ndef reward(samples):\n    time.sleep(2)\n"
    assert kinds(call(tmp_path, code, samples("a", "b"), timeout=0.2)) == ["timeout"] * 2


@pytest.mark.parametrize(
    "wait",
    [
        "await asyncio.sleep(30)",
        "while True:\n            try: await asyncio.sleep(30)\n            except BaseException: pass",
    ],
    ids=["cancellable", "ignores being cancelled"],
)
def test_an_async_call_that_hangs_fails_alone(tmp_path: Path, wait: str) -> None:
    body = f"    if sample.text == 'hang':\n        {wait}\n    return 1\n"
    code = f"import asyncio\nasync def reward(sample):\n{body}"
    assert kinds(call(tmp_path, code, samples("a", "hang", "b"), timeout=0.2)) == [1.0, "timeout", 1.0]


def test_an_async_batch_that_hangs_is_cancelled(tmp_path: Path) -> None:
    code = (
        "import asyncio\nlog = []\n"
        "async def reward(samples):\n"
        "    try: await asyncio.sleep(30)\n"
        "    except asyncio.CancelledError: log.append('cancelled'); raise\n"
    )
    (tmp_path / "mine.py").write_text(code)
    reward = load_reward("mine.py:reward", tmp_path, timeout=0.2)
    caller = RewardCaller(reward)
    assert kinds(caller.call(samples("a"))) == ["timeout"]
    assert reward.fn.__globals__["log"] == ["cancelled"]


def test_an_async_call_that_blocks_its_loop_is_abandoned(tmp_path: Path) -> None:
    code = "import time\nasync def reward(sample):\n    time.sleep(3)\n    return 1\n"
    before = time.monotonic()
    assert kinds(call(tmp_path, code, samples("a"), timeout=0.2)) == ["timeout"]
    assert time.monotonic() - before < 2.5


def test_async_calls_overlap_up_to_a_bound_and_share_one_loop(tmp_path: Path) -> None:
    code = (
        "import asyncio\nrunning = 0; most = 0; loops = set()\n"
        "async def reward(sample):\n"
        "    global running, most\n"
        "    running += 1; most = max(most, running); loops.add(asyncio.get_running_loop())\n"
        "    await asyncio.sleep(0.01); running -= 1\n"
        "    return 1\n"
    )
    (tmp_path / "mine.py").write_text(code)
    reward = load_reward("mine.py:reward", tmp_path)
    caller = RewardCaller(reward)
    assert caller.call(samples(*"x" * (ASYNC_AT_ONCE + 8))) == [1.0] * (ASYNC_AT_ONCE + 8)
    caller.call(samples("again"))
    assert reward.fn.__globals__["most"] == ASYNC_AT_ONCE
    assert len(reward.fn.__globals__["loops"]) == 1


def test_a_hung_reward_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\ndef reward(sample):\n    time.sleep(60)\n")
    code = (
        "from pathlib import Path; from rewards.calling import RewardCaller\n"
        "from rewards.plugin import load_reward; from rewards.types import RewardInput\n"
        f"reward = load_reward('mine.py:reward', Path({str(tmp_path)!r}), timeout=0.1)\n"
        "print(RewardCaller(reward).call([RewardInput('p', 'x')])[0].kind)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "timeout", done.stderr
