"""Law 2: a failure is data, never a zero. Law 3: a call is bounded, and one that hangs blocks nobody.

Functions run in real child processes here, as they do in a run.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewards.answers import Answer
from rewards.pool import RewardPool
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError, RewardError, WaitTimeout
from rlhf_platform.types import Failed


def samples(*texts: str) -> list[RewardInput]:
    return [RewardInput(prompt_id=str(i), text=text) for i, text in enumerate(texts)]


@contextmanager
def pool(folder: Path, code: str, **keys: Any) -> Iterator[RewardPool]:
    (folder / "mine.py").write_text(code)
    with RewardPool.of("mine.py:reward", folder, **({"timeout": 5.0} | keys)) as made:
        yield made


def call(folder: Path, code: str, inputs: list[RewardInput], **keys: Any) -> list[Answer]:
    with pool(folder, code, **keys) as made:
        return made.call(inputs)


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


def test_a_function_sees_the_whole_sample(tmp_path: Path) -> None:
    given = RewardInput("p", "alpha", (5, 2), (-0.25, -1.5), "bravo", "de", "a.wav", "ann", 1.5, metadata={"k": [1]})
    code = f"def reward(sample):\n    return float(repr(sample) == {repr(given)!r})\n"
    assert call(tmp_path, code, [given]) == [1.0]


def test_an_exception_fails_its_own_sample_and_says_where(tmp_path: Path) -> None:
    code = "def reward(sample):\n    return 1 / len(sample.text)\n"
    good, bad = call(tmp_path, code, samples("ab", ""))
    assert good == 0.5
    assert bad == Failed("raised", f"ZeroDivisionError: division by zero ({tmp_path}/mine.py:2)", "reward")


@pytest.mark.parametrize("form", ["def reward(s)", "async def reward(s)", "def reward(samples)"])
def test_whatever_is_raised_is_the_samples_failure(tmp_path: Path, form: str) -> None:
    statements = ["raise SystemExit(1)", "raise KeyboardInterrupt", "raise TimeoutError('server')", "raise Unprintable"]
    code = f"class Unprintable(Exception):\n    def __str__(self): 1 / 0\n{form}:\n    exec(TEXT)\n"
    for statement in statements:
        code_of_one = code.replace("TEXT", repr(statement))
        assert kinds(call(tmp_path, code_of_one, samples("a", "b"))) == ["raised", "raised"]


@pytest.mark.parametrize("expression", ["[1.0]", "1.0", "None", "'ab'", "{'a': 1, 'b': 2}", "(x for x in (1, 2))"])
def test_a_batch_of_another_shape_fails_every_sample(tmp_path: Path, expression: str) -> None:
    code = f"def reward(samples):\n    return {expression}\n"
    assert kinds(call(tmp_path, code, samples("a", "b"))) == ["wrong_shape"] * 2


def test_an_array_is_a_batch_and_its_bad_items_fail_alone(tmp_path: Path) -> None:
    code = "import numpy as np\ndef reward(samples):\n    return np.array([1.0, np.nan, 2.0])\n"
    assert kinds(call(tmp_path, code, samples("a", "b", "c"))) == [1.0, "not_a_number", 2.0]


def test_no_samples_call_nothing(tmp_path: Path) -> None:
    assert call(tmp_path, "def reward(samples):\n    raise AssertionError\n", []) == []


SLEEP = "import time\ndef reward(sample):\n    if sample.text == 'hang': time.sleep(60)\n    return 1.0\n"


def test_a_hanging_call_is_killed_fails_alone_and_says_where_it_hung(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEP, timeout=0.3) as made:
        first, hung, last = made.call(samples("a", "hang", "b"))
        assert (first, last) == (1.0, 1.0)
        said = f"no answer within 0.3 s; its process was killed ({tmp_path}/mine.py:3)"
        assert hung == Failed("timeout", said, "reward")
        assert made.call(samples("c")) == [1.0]
        assert made.restarts == 1


def test_a_hang_that_holds_the_interpreter_is_killed_too(tmp_path: Path) -> None:
    code = (
        "import ctypes\n"
        "def reward(sample):\n"
        "    if sample.text == 'hang': ctypes.PyDLL(None).sleep(60)\n"  # PyDLL keeps the interpreter's lock
        "    return 1.0\n"
    )
    assert kinds(call(tmp_path, code, samples("a", "hang", "b"), timeout=0.3)) == [1.0, "timeout", 1.0]


def test_a_late_batch_fails_as_a_whole_unless_it_may_be_asked_again_one_by_one(tmp_path: Path) -> None:
    code = (
        "import time\ndef reward(samples):\n"
        "    [time.sleep(60) for s in samples if s.text == 'hang']\n    return [1] * len(samples)\n"
    )
    assert kinds(call(tmp_path, code, samples("a", "hang", "b"), timeout=0.3)) == ["timeout"] * 3
    with pool(tmp_path, code, timeout=0.3, retries=1) as made:
        assert kinds(made.call(samples("a", "hang", "b"))) == [1.0, "timeout", 1.0]
        assert made.retried == 3


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize(
    ("end", "how"),
    [("ctypes.string_at(0)", "died of SIGSEGV"), ("os._exit(3)", "ended with exit code 3")],
    ids=["segmentation fault", "exit"],
)
def test_a_crash_fails_the_sample_it_was_over_and_no_other(tmp_path: Path, form: str, end: str, how: str) -> None:
    code = f"import ctypes, os\ndef one(sample):\n    if sample.text == 'crash': {end}\n    return 1.0\n{form}"
    answers = call(tmp_path, code, samples("a", "crash", "b", "c"))
    assert kinds(answers) == [1.0, "crashed", 1.0, 1.0]
    assert isinstance(answers[1], Failed)
    assert answers[1].message.startswith(f"its process {how}")
    assert f"{tmp_path}/mine.py:3" in answers[1].message or "exit" in how


def test_a_call_that_eats_memory_is_killed_at_its_limit(tmp_path: Path) -> None:
    code = (
        "def reward(sample):\n    eaten = []\n"
        "    while sample.text == 'eat': eaten.append(b'x' * 20_000_000)\n    return 1.0\n"
    )
    fine, eats, after = call(tmp_path, code, samples("a", "eat", "b"), max_memory=0.3, timeout=30.0)
    assert (fine, after) == (1.0, 1.0)
    assert isinstance(eats, Failed)
    assert eats.kind == "crashed"
    assert eats.message.endswith("GiB: reward.max_memory is 0.3; raise it if that much is needed")


@pytest.mark.parametrize(
    "wait",
    [
        "await asyncio.sleep(30)",
        "while True:\n            try: await asyncio.sleep(30)\n            except BaseException: pass",
        "time.sleep(30)",
    ],
    ids=["cancellable", "ignores being cancelled", "blocks the loop"],
)
def test_an_async_call_that_hangs_fails_alone(tmp_path: Path, wait: str) -> None:
    body = f"    if sample.text == 'hang':\n        {wait}\n    return 1\n"
    code = f"import asyncio, time\nasync def reward(sample):\n{body}"
    assert kinds(call(tmp_path, code, samples("a", "hang", "b"), timeout=0.2)) == [1.0, "timeout", 1.0]


def test_an_async_batch_that_hangs_is_cancelled(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib\n"
        "async def reward(samples):\n"
        "    try: await asyncio.sleep(30)\n"
        f"    except asyncio.CancelledError: pathlib.Path({str(tmp_path / 'log')!r}).touch(); raise\n"
    )
    assert kinds(call(tmp_path, code, samples("a"), timeout=0.2)) == ["timeout"]
    assert (tmp_path / "log").exists()


COUNTS = """
import asyncio
running = most = 0
loops = set()
async def reward(sample):
    global running, most
    running += 1
    most = max(most, running)
    loops.add(id(asyncio.get_running_loop()))
    await asyncio.sleep(0.01)
    running -= 1
    return {"most": most, "loops": len(loops)}
"""


@pytest.mark.parametrize(("concurrency", "most"), [(None, 32), (3, 3)])
def test_async_calls_overlap_up_to_a_bound_and_share_one_loop(
    tmp_path: Path, concurrency: int | None, most: int
) -> None:
    with pool(tmp_path, COUNTS, concurrency=concurrency) as made:
        made.call(samples(*"x" * 40))
        assert made.call(samples("again")) == [{"most": float(most), "loops": 1.0}]


def test_sync_calls_run_in_as_many_processes_as_the_recipe_says(tmp_path: Path) -> None:
    code = "import os, time\ndef reward(sample):\n    time.sleep(0.05)\n    return os.getpid()\n"
    with pool(tmp_path, code, concurrency=3) as made:
        assert len(set(made.call(samples(*"x" * 24)))) == 3


def test_a_failure_that_passes_is_asked_again_as_often_as_the_recipe_says(tmp_path: Path) -> None:
    code = (
        "calls = {}\n"
        "def reward(sample):\n"
        "    calls[sample.text] = calls.get(sample.text, 0) + 1\n"
        "    if calls[sample.text] < int(sample.text): raise OSError('busy')\n"
        "    return calls[sample.text]\n"
    )
    with pool(tmp_path, code, retries=2) as made:
        assert kinds(made.call(samples("1", "2", "3", "4"))) == [1.0, 2.0, 3.0, "raised"]
        assert made.retried == 5


def test_an_answer_that_is_no_number_is_not_asked_for_again(tmp_path: Path) -> None:
    code = (
        "calls = 0\ndef reward(sample):\n    global calls\n    calls += 1\n    return None if calls == 1 else calls\n"
    )
    assert kinds(call(tmp_path, code, samples("a", "b"), retries=3)) == ["not_a_number", 2.0]


def test_a_process_is_replaced_after_its_calls_and_takes_up_what_it_remembered(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "class reward:\n"
        "    seen = 0\n"
        "    def __call__(self, sample):\n"
        "        self.seen += 1\n"
        "        return {'seen': self.seen, 'process': os.getpid()}\n"
        "    def state_dict(self): return {'seen': self.seen}\n"
        "    def load_state_dict(self, state): self.seen = state['seen']\n"
    )
    with pool(tmp_path, code, recycle_after=2) as made:
        answers = made.call(samples(*"abcde"))
    parts: list[Any] = answers
    assert [part["seen"] for part in parts] == [1, 2, 3, 4, 5]
    assert [len({part["process"] for part in parts[i : i + 2]}) for i in (0, 2, 4)] == [1, 1, 1]
    assert len({part["process"] for part in parts}) == 3


def test_what_was_answered_once_is_not_asked_again_with_a_cache_and_a_failure_is(tmp_path: Path) -> None:
    code = (
        "calls = 0\n"
        "def reward(sample):\n"
        "    global calls\n    calls += 1\n"
        "    if sample.text == 'bad': raise OSError\n"
        "    return calls\n"
    )
    a, b, bad = (RewardInput("p", text) for text in ("a", "b", "bad"))
    other = RewardInput("q", "a")
    with pool(tmp_path, code, cache=True) as made:
        assert kinds(made.call([a, b, a, bad, other])) == [1.0, 2.0, 1.0, "raised", 4.0]
        assert kinds(made.call([bad, a, other])) == ["raised", 1.0, 4.0]
        assert made.cached == 3


def test_what_is_left_when_the_time_of_a_step_is_over_has_failed(tmp_path: Path) -> None:
    code = "import time\ndef reward(sample):\n    time.sleep(0.2)\n    return 1\n"
    with pool(tmp_path, code) as made:
        batch = PackedBatch.of(InputBatch.of_inputs(samples(*"x" * 100)))
        answers, _ = made.score(batch, until=time.monotonic() + 1.0)
        assert 1 <= sum(answer == 1.0 for answer in answers) <= 5
        assert {answer.kind for answer in answers if isinstance(answer, Failed)} == {"timeout"}


def test_what_a_reward_starts_dies_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, time, pathlib\n"
        "def reward(sample):\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "    time.sleep(60)\n"
    )
    assert kinds(call(tmp_path, code, samples("a"), timeout=0.5)) == ["timeout"]
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Whether a process is gone, or as good as: its parent may not have asked for it yet."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_left_when_the_process_that_asks_is_killed(tmp_path: Path) -> None:
    """As a reward actor is, at the end of a run; even a function that hangs is gone."""
    (tmp_path / "mine.py").write_text(
        SLEEP.replace("time.sleep(60)", f"open({str(tmp_path / 'at')!r}, 'w'); time.sleep(60)")
    )
    asks = (
        "import psutil\nfrom pathlib import Path\nfrom rewards.pool import RewardPool\n"
        "from rewards.types import RewardInput\n"
        f"pool = RewardPool.of('mine.py:reward', Path({str(tmp_path)!r}))\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "pool.call([RewardInput('p', 'hang')])\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", asks], cwd=root, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        pid = int(asking.stdout.readline())
        for _ in range(200):
            if (tmp_path / "at").exists():
                break
            time.sleep(0.05)
        os.kill(asking.pid, signal.SIGKILL)
    assert gone(pid)


def test_a_pool_can_be_closed_while_it_works_and_ends_with_the_program(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLEEP)
    asks = (
        "import threading, time\nfrom pathlib import Path\nfrom rewards.pool import RewardPool\n"
        "from rewards.types import RewardInput\n"
        f"pool = RewardPool.of('mine.py:reward', Path({str(tmp_path)!r}), timeout=50)\n"
        "threading.Timer(0.5, pool.close).start()\n"
        "print([answer.kind for answer in pool.call([RewardInput('p', 'hang'), RewardInput('q', 'a')])])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", asks], cwd=root, capture_output=True, text=True, timeout=40)
    assert done.stdout.strip() == "['crashed', 'timeout']", done.stderr


def test_a_function_that_cannot_be_loaded_is_the_recipes_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reward\.fn is 'mine\.py:reward': mine\.py cannot be imported \(OSError"):
        call(tmp_path, "raise OSError('no model')\ndef reward(sample): ...\n", [])


def test_a_process_that_dies_or_hangs_as_it_loads_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"its process ended with exit code 9 while it was to load its function"):
        call(tmp_path, "import os\nos._exit(9)\n", [])
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(60)\n")
    from rewards.plugin import Term
    from rlhf_platform.recipe.schema import RewardConfig

    term = Term(RewardConfig(fn="mine.py:reward"), "reward", base_dir=tmp_path)
    with pytest.raises(WaitTimeout, match=r"reward reward waited 0\.5 s for its process to load its function"):
        RewardPool(term, start_timeout=0.5)


def test_a_function_that_cannot_be_loaded_again_is_unavailable(tmp_path: Path) -> None:
    with pool(tmp_path, "import os\ndef reward(sample):\n    os._exit(1)\n") as made:
        (tmp_path / "mine.py").unlink()
        first, second = made.call(samples("a", "b"))
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.kind, second.kind) == ("crashed", "unavailable")
    assert "there is no file" in second.message


def test_a_function_sees_no_gpu_and_no_more_threads_than_it_reserved(tmp_path: Path) -> None:
    code = (
        "import os\ndef reward(sample):\n"
        "    return {'gpus': len(os.environ['CUDA_VISIBLE_DEVICES']), 'threads': int(os.environ['OMP_NUM_THREADS'])}\n"
    )
    assert call(tmp_path, code, samples("a"), cpus=4.0, concurrency=2) == [{"gpus": 0.0, "threads": 2.0}]


def test_what_a_function_prints_does_not_disturb_its_answers(tmp_path: Path) -> None:
    code = "import os\ndef reward(sample):\n    print('[0, 1, 9]'); os.write(2, b'noise\\n')\n    return 1\n"
    assert call(tmp_path, code, samples(*"abc")) == [1.0] * 3
