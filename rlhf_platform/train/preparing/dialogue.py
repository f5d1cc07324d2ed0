"""What a run of spoken dialogue asks of its data before its actors start."""

from collections.abc import Sequence

from rlhf_platform.data.dialogue import is_dialogue, session_of
from rlhf_platform.data.manifest import Row, raise_if_any
from rlhf_platform.recipe.schema import Recipe


def check_turns(recipe: Recipe, rows: Sequence[Row]) -> None:
    """Every row that is answered in RL or in the evaluation is a turn of a dialogue, and no session grows beyond
    `dialogue.most_turns`. Rows that are learnt alone may be transcripts: the policy goes on hearing as it did.

    Raises one DataError that names the bad rows.
    """
    dialogue, answered = recipe.dialogue, (recipe.data.rl_split, recipe.data.eval_split)
    problems: list[tuple[int, str]] = []
    for row in rows:
        if not is_dialogue(row.metadata):
            if row.split not in answered:
                continue
            problems.append((row.number, "metadata has no 'said': what the user's turn says (docs/dialogue_data.md)"))
            continue
        session = session_of(str(row.audio), row.metadata)
        turns = len(session.history) // 2 + 1
        played = turns + min(dialogue.turns - 1, len(session.next) if dialogue.user == "script" else dialogue.turns)
        if played > dialogue.most_turns:
            said = f"it has {turns} user turns, {played} when it is played on with dialogue.turns={dialogue.turns}; "
            problems.append((row.number, f"{said}raise dialogue.most_turns from {dialogue.most_turns} to {played}"))
    raise_if_any(rows[0].manifest, problems, "are no dialogue that can be played")
