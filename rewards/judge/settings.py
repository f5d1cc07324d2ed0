"""How a judge is asked: the keywords of every reward that asks one."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from rlhf_platform.errors import RecipeError

STRUCTURED = ("vllm", "json_schema")
SEES = ("text", "audio")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """An OpenAI-compatible endpoint and how it is asked. Raises `RecipeError` for a value that is not allowed."""

    judge: str
    """Its address, as http://127.0.0.1:8000/v1."""
    model: str = ""
    """Name of the served model; asked for at /models where it is empty."""
    api_key_env: str = ""
    """Environment variable that holds the API key."""
    prompt: str = ""
    """Name of a prompt that comes with the platform, or the path of a YAML file; empty: that of the reward."""
    structured: str = "vllm"
    """How the verdict is held to the labels: `vllm` (structured_outputs) or `json_schema` (response_format)."""
    votes: int = 1
    """Verdicts drawn for each order."""
    expected: bool = True
    """Read the level off the labels' probabilities instead of drawing votes: one token, smooth, always the same."""
    swap: bool = True
    """Ask in both orders."""
    temperature: float = 0.7
    """Of votes, and of reasoning when there are several votes; a single vote is greedy."""
    reasoning_tokens: int = 0
    """Tokens of free text before each verdict at most; 0 none."""
    agreement: float = 0.0
    """Share of the votes that must have one sign, else the judge abstains."""
    sees: str = "text"
    """`text`: transcripts. `audio`: the user turns' clips as well."""
    timeout: float = 20.0
    """Seconds for one request."""
    retries: int = 1
    """Times that a request is made again after the network, the time or a busy server failed it."""
    cache_size: int = 100_000
    """Answers that are remembered; 0 none."""
    cache_dir: str = ""
    """Folder where they are kept from one run to the next; empty: nowhere."""
    budget_tokens: int = 0
    """Tokens that may be spent, prompts included; 0 any number."""
    budget_cost: float = 0.0
    """What may be spent, in the currency of the prices; 0 any sum."""
    price_in: float = 0.0
    """Of a million prompt tokens."""
    price_out: float = 0.0
    """Of a million completion tokens."""
    seed: int = 0
    """Of votes, at an endpoint with `json_schema`. vLLM is sent none: on the CPU it dies of one."""

    def __post_init__(self) -> None:
        url = urlsplit(self.judge)
        if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc:
            raise RecipeError(f"judge is {self.judge.rpartition('@')[2]!r}: write it as http://127.0.0.1:8000/v1")
        for name, allowed in (("structured", STRUCTURED), ("sees", SEES)):
            if getattr(self, name) not in allowed:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; allowed {', '.join(allowed)}")
        if self.votes < 1:
            raise RecipeError(f"votes is {self.votes}; at least 1")
        if self.expected and self.votes > 1 and not self.reasoning_tokens:
            raise RecipeError(
                f"votes is {self.votes} with expected: the probabilities are the same each time; "
                "leave votes at 1, set expected: false, or give reasoning_tokens"
            )
        least = {"temperature": 0, "reasoning_tokens": 0, "retries": 0, "cache_size": 0, "agreement": 0}
        least |= {"budget_tokens": 0, "budget_cost": 0, "price_in": 0, "price_out": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise RecipeError(f"{name} is {getattr(self, name):g}; at least {bound}")
        if not self.timeout > 0 or self.agreement > 1:
            raise RecipeError(f"timeout is {self.timeout:g}, agreement {self.agreement:g}: above 0, and at most 1")
        if self.budget_cost and not (self.price_in or self.price_out):
            raise RecipeError(f"budget_cost is {self.budget_cost:g}: give price_in and price_out too")
