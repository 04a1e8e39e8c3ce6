"""Bad answers are told from captions: each check stops what it is for, and lets real prose pass."""

from __future__ import annotations

import pytest

from rushes.curation.captioning import checks
from rushes.curation.captioning.prompt import load_template
from rushes.curation.sections import Captioning

GOOD = (
    "A grey squirrel with a thick tail sits upright on a mossy log in a sunlit forest, holding a hazelnut between its "
    "paws. Behind it tall beech trunks fade into a pale green haze. It turns the nut twice, gnaws at the shell, then "
    "drops to all fours and runs along the log towards the left, where it stops and looks over its shoulder. Warm "
    "late light falls from the right and draws a bright rim around its fur. Natural colours, documentary style; the "
    "camera follows slowly at eye level in a medium close-up."
)
ALSO_GOOD = (
    "Two women in red raincoats walk along a wet pier, one of them pushing a bicycle. Waves break against the stones "
    "on both sides, and a lighthouse with a white band stands at the end under heavy clouds. The wind tears at their "
    "hoods; they lean forward, laugh, and the taller one points at the sea. Grey, cold daylight, muted colours, a "
    "handheld look with a slight sway as the camera walks behind them. A sign on the railing reads \"No entry\"."
)  # fmt: skip
SPOILED = {
    "empty": "  \n ",
    "words": "A dog runs.",
    "too many words": " ".join(f"The {w} bird flies over a {w} house with the wind." for w in map(str, range(60))),
    "unfinished": GOOD[: GOOD.rindex("medium")].strip(),
    "german": (
        "Ein graues Eichhörnchen sitzt aufrecht auf einem bemoosten Baumstamm im sonnigen Wald und hält eine Haselnuss "
        "zwischen den Pfoten. Hinter ihm verblassen hohe Buchen im hellgrünen Dunst, während es die Nuss dreht, an der "
        "Schale nagt und dann nach links läuft, wo es stehen bleibt und zurückschaut, langsam begleitet vom Blick."
    ),
    "chinese": "一只灰色的松鼠坐在长满苔藓的木头上，" * 12 + "。",
    "refusal": "I'm sorry, but I cannot describe this person. " + GOOD,
    "as an AI": GOOD + " As an AI language model I cannot see sound.",
    "asks for the video": "Please provide the video so that I can write about it. " + GOOD,
    "loop of words": GOOD + " The squirrel runs" + " runs" * 30 + ".",
    "loop of phrases": GOOD + " and then it moves to the left of the log again" * 4 + ".",
    "loop of sentences": "A man walks along the beach. " * 12,
    "leak": GOOD + " No lists, no headings, no guesses about names, sounds, or what happens before or after.",
    "markup": GOOD + " <|im_end|>",
    "role": "assistant: " + GOOD,
    "the video shows": "The video shows " + GOOD[0].lower() + GOOD[1:],
    "this clip": "In this clip, " + GOOD,
    "shows later": GOOD + " The clip ends with a wide view of the wood.",
    "list": "- A squirrel sits on a log.\n- It eats a nut and runs.\n- The light is warm.\n" + GOOD,
    "broken bytes": GOOD.replace("squirrel", "squ\ufffdrrel"),
    "half a character": GOOD + " \ud83d.",
    "control": GOOD.replace("log", "l\x00g"),
}


def wrong(text: str, finished: bool = True, **changes) -> str | None:
    return checks.check(text, Captioning(**changes), load_template("caption"), finished)


@pytest.mark.parametrize(
    "text", [GOOD, ALSO_GOOD, f'"{GOOD}"', f"Here is the caption: {GOOD}", GOOD + " A red balloon."]
)
def test_a_good_caption_passes(text):
    assert wrong(text) is None


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_answer_is_turned_down_with_a_reason(kind):
    assert wrong(SPOILED[kind])


def test_the_reason_says_what_was_wrong():
    assert "3 words, wanted 40 to 220" in wrong(SPOILED["words"])
    assert "refusal" in wrong(SPOILED["refusal"]) and "I'm sorry" in wrong(SPOILED["refusal"])
    assert "invalid UTF-8" in wrong(SPOILED["broken bytes"])
    assert "repeats the instructions" in wrong(SPOILED["leak"])
    assert "loop" in wrong(SPOILED["loop of sentences"]) and "loop" in wrong(SPOILED["loop of words"])
    assert "The video" in wrong(SPOILED["the video shows"])


def test_an_answer_that_was_cut_off_is_no_caption_even_where_it_is_long_enough():
    assert "max_tokens=360" in wrong(GOOD, finished=False)


def test_checks_that_the_recipe_leaves_out_are_not_made():
    assert wrong("w3", checks=()) is None
    assert wrong("w3", checks=("length",)) is not None
    assert wrong(SPOILED["refusal"], checks=("length", "language")) is None


def test_every_check_of_a_recipe_is_there_and_is_on_by_default():
    assert set(Captioning().checks) == set(checks.CHECKS)


def test_cleaning_takes_away_what_models_put_around_a_caption_and_nothing_else():
    assert checks.clean(f'  "{GOOD}"\n') == GOOD
    assert checks.clean("Caption: A dog\n\nruns.") == "A dog runs."
    assert checks.clean('"Stop" says the sign, and "go" the other."') == '"Stop" says the sign, and "go" the other."'
    assert checks.clean(ALSO_GOOD) == ALSO_GOOD
