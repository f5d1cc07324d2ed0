"""The real vLLM server of a judge: a tiny random Llama, whose verdicts mean nothing and always parse."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.judge import Exchange, JudgeSettings, PairJudge, RubricJudge
from rewards.judge.model import with_lora
from rewards.judge.rubric import load_rubric
from rewards.judge.server import JudgeServer
from rlhf_platform.errors import ClusterError, RecipeError

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
EXCHANGE = Exchange("you are zoe.", (), "lift the cup")


def write_llama(folder: Path, template: str | None) -> Path:
    """Random weights, and a token for each byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = template
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeServer]:
    folder = tmp_path_factory.mktemp("judge")
    model = write_llama(folder / "llama", TEMPLATE)
    with JudgeServer(str(model), folder, max_tokens=4096, dtype="float32", start_timeout=280.0) as running:
        yield running


@pytest.mark.slow
def test_a_verdict_parses_however_it_is_asked_for(server: JudgeServer) -> None:
    ways = [
        {"expected": True},
        {"expected": False, "votes": 3, "temperature": 2.0},
        {"expected": False, "prompt": "pairwise-2"},
        {"expected": True, "reasoning_tokens": 8},
        {"expected": False, "structured": "json_schema"},
    ]

    async def ask() -> None:
        for way in ways:
            judge = PairJudge(JudgeSettings(judge=server.url, timeout=200.0, **way))  # type: ignore[arg-type]
            verdict = await judge.compare(EXCHANGE, "i lift the cup", "no")
            assert -2.0 <= verdict.level <= 2.0
            assert len(verdict.votes) == 2 * way.get("votes", 1)
            await judge.close()
        rater = RubricJudge(JudgeSettings(judge=server.url, timeout=200.0))
        criterion = load_rubric("realtime").criteria[0]
        assert 1.0 <= (await rater.rate(EXCHANGE, "i lift the cup", criterion)).level <= 3.0
        await rater.close()

    asyncio.run(ask())


@pytest.mark.slow
def test_probabilities_are_those_of_the_labels_alone(server: JudgeServer) -> None:
    """A random model gives a label next to nothing, so that it is not among its likely tokens."""
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key="none", timeout=200.0)
    came = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": "A or B?"}],
        max_completion_tokens=1,
        logprobs=True,
        top_logprobs=2,
        extra_body={"structured_outputs": {"choice": ["A", "B"]}},
    )
    logprobs = came.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert {each.token for each in logprobs.content[0].top_logprobs} == {"A", "B"}


@pytest.mark.slow
def test_a_server_dies_with_who_started_it(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "llama", TEMPLATE)
    program = (
        "import sys, time; from rewards.judge.server import JudgeServer\n"
        f"server = JudgeServer({str(model)!r}, {str(tmp_path)!r}, max_tokens=512, dtype='float32')\n"
        "server._wait = lambda: print(server._process.pid, flush=True) or time.sleep(600)\n"
        "server.start()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(2.0)  # it begins to watch
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(600):
        if not is_alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the server outlives its parent")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_without_a_chat_template_is_no_judge(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "llama", None)
    with pytest.raises(RecipeError, match=r"judges\[1\].model is .*no chat template"):
        JudgeServer(str(model), tmp_path, key="judges[1]").start()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"judges\[0\].model is '/no/such/model': there is no such folder"):
        JudgeServer("/no/such/model", tmp_path).start()


def test_a_lora_that_is_not_there_is_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "llama", TEMPLATE)
    with pytest.raises(RecipeError, match=r"judges\[0\].lora is .*adapter_config.json"):
        JudgeServer(str(model), tmp_path, adapter=str(tmp_path)).start()


def write_lora(model: Path, folder: Path) -> Path:
    """A random LoRA of rank 4 in the attention of a model."""
    import peft
    from transformers import AutoModelForCausalLM

    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), settings).save_pretrained(folder)
    return folder


def test_a_merged_lora_says_what_peft_says_with_it_beside_the_weights(tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = write_llama(tmp_path / "llama", TEMPLATE)
    lora = write_lora(model, tmp_path / "lora")
    merged = with_lora(str(model), lora, "float32", tmp_path, "judges[0].lora")
    assert AutoTokenizer.from_pretrained(merged).chat_template == TEMPLATE
    ids = torch.arange(2, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        before = plain(ids).logits
        beside = peft.PeftModel.from_pretrained(plain, str(lora))(ids).logits
        found = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    torch.testing.assert_close(found, beside, atol=1e-5, rtol=1e-4)
    assert (beside - before).abs().max() > 1e-2
    written = Path(merged, "model.safetensors").stat()
    assert with_lora(str(model), lora, "float32", tmp_path, "judges[0].lora") == merged
    assert Path(merged, "model.safetensors").stat() == written, "it is merged once"


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "llama", TEMPLATE)
    lora = write_lora(model, tmp_path / "lora")
    config = lora / "adapter_config.json"
    config.write_text(config.read_text().replace('"v_proj"', '"w_proj"').replace('"q_proj"', '"u_proj"'))
    with pytest.raises(RecipeError, match=r"judges\[0\].lora is .*: it does not fit the judge's model"):
        JudgeServer(str(model), tmp_path, adapter=str(lora)).start()


@pytest.mark.slow
def test_a_server_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    model = write_llama(tmp_path / "llama", TEMPLATE)
    with pytest.raises(ClusterError, match=r"judges\[0\]: the judge's server ended with exit code (?s:.*)dtype"):
        JudgeServer(str(model), tmp_path, dtype="float9").start()


def test_another_adapter_in_the_same_folder_has_another_name(tmp_path: Path) -> None:
    """Answers are remembered by the served name."""
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    first = JudgeServer("smollm2", tmp_path, adapter=str(tmp_path)).model
    (tmp_path / "adapter_config.json").write_text('{"r": 16}')
    assert JudgeServer("smollm2", tmp_path, adapter=str(tmp_path)).model != first
