"""What the replies of a step are like, without their reasoning."""

from collections.abc import Sequence

from rlhf_platform.data.dialogue import split_reply
from rlhf_platform.data.evasive import is_evasive
from rlhf_platform.data.text import words
from rlhf_platform.train.spread import mean
from rlhf_platform.train.transcripts import repeated_ngram_rate
from rlhf_platform.types import Sample


def reply_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Lengths in words, and marks of a hacked judge: excuses, silence, words said again and again."""
    split = [split_reply(sample.text) for sample in samples]
    languages = [sample.prompt.language for sample in samples]
    replies = [words(reply, language) for (_, reply), language in zip(split, languages, strict=True)]
    references = [words(sample.prompt.reference, sample.prompt.language) for sample in samples]
    return {
        "reply_words": mean([len(reply) for reply in replies]),
        "reasoning_words": mean(
            [len(words(trace, language)) for (trace, _), language in zip(split, languages, strict=True)]
        ),
        "empty_rate": mean([not reply for reply in replies]),
        "repeated_ngram_rate": repeated_ngram_rate(replies, references),
        "evasive_rate": mean(list(map(is_evasive, replies, references, languages))),
        "later_turns": mean(["#" in sample.prompt.id for sample in samples]),
    }
