"""What an answer must pass before it is a caption: nothing that fails is passed on.

Each check takes the text and gives None, or what is wrong in a few words. They are plain and cheap (tens of
microseconds a caption): what they let through is judged by people and by the trained model, what they stop is the
well-known ways in which language models fail at a million prompts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from rushes.curation.captioning.prompt import Template
from rushes.curation.sections import Captioning

LATIN_MIN = 0.95  # share of letters in Latin script; a caption may quote a shop sign
STOP_WORDS_MIN = 0.15  # share of English function words: English prose has 0.35-0.5, word lists and code below 0.1
STOP_WORDS = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "behind", "beside", "but", "by", "for", "from", "has", "have",
        "her", "his", "in", "into", "is", "it", "its", "near", "of", "on", "one", "or", "over", "that", "the", "their",
        "them", "then", "there", "they", "this", "through", "to", "toward", "towards", "two", "under", "up", "while",
        "who", "with",
    )
)  # fmt: skip
LOOP_WORDS = 8  # a run of so many words ...
LOOP_TIMES = 3  # ... that stands so often is a loop; people repeat shorter ones
STUTTER = re.compile(r"\b(\w+)(?:[\s,.;]+\1\b){3,}", flags=re.IGNORECASE)  # one word four times in a row
DISTINCT_MIN = 0.3  # distinct words over words, in texts of LONG words and more; prose of 100-200 words has 0.5-0.75
LONG = 40
LEAK_WORDS = 7  # so many words in a row from the instructions are no chance
REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can not|apologi[sz]e|do not|don't) ?"
    r"(?:assist|help|see|view|describe|identify|provide|process|access|have access|watch|for)?\b|as an ai\b"
    r"|(?:ai|language) (?:language )?(?:model|assistant)\b|no (?:video|image|frame)s? (?:was|were|has been|have been)"
    r" (?:provided|given|attached|shared)|please (?:provide|upload|share) (?:the|a|an|your) (?:video|image|frame))",
    flags=re.IGNORECASE,
)
NOUNS = (
    r"(?:(?:short|provided|given|entire) )?(?:video|clip|footage|image|frames?|sequence)(?: clip| footage| sequence)?"
)
VERBS = (
    r"(?:shows?|depicts?|features?|captures?|begins?|opens?|starts?|ends?|presents?|displays?|consists?|contains?"
    r"|portrays?|is (?:about|of)|we see|we can see|there (?:is|are))"
)
SPEAKS_OF_VIDEO = re.compile(
    rf"^\W*(?:in |throughout )?(?:the|this|a) {NOUNS}\b|\b(?:the|this) {NOUNS},? {VERBS}\b"
    rf"|\b(?:in|throughout) (?:this|the) {NOUNS}\b|^\W*(?:the|this) scene,? {VERBS}\b",
    flags=re.IGNORECASE,
)
MARKUP = re.compile(r"<\|\w+\|>|\[/?INST\]|</?s>|^(?:user|assistant|system)\s*:|^#+ |```", flags=re.MULTILINE)
BROKEN = ("Cc", "Cs", "Co", "Cn")  # Unicode's control, surrogate, private and unassigned characters
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
LISTED = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", flags=re.MULTILINE)
LISTED_MAX = 1  # lines that look like items of a list
CAPTION_LEAD = re.compile(r"^(?:here(?:'s| is) (?:the|a)[^:\n]*:|caption:|description:)\s*", flags=re.IGNORECASE)
QUOTES = "\"'“”‘’"


def clean(text: str) -> str:
    """White space as single spaces, NFC, without the quotes and the "Caption:" that models put around an answer."""
    text = CAPTION_LEAD.sub("", unicodedata.normalize("NFC", text).strip())
    if len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES and not set(text[1:-1]) & set(QUOTES):
        text = text[1:-1]
    return re.sub(r"\s+", " ", text).strip()


def check(
    text: str, recipe: Captioning, template: Template, finished: bool = True, only: tuple[str, ...] | None = None
) -> str | None:
    """The first of the recipe's checks that the raw answer fails, in a few words; None: it is a caption.

    finished: False where the model was stopped by max_tokens. only: names of checks, instead of the recipe's.
    """
    for name in recipe.checks if only is None else only:
        wrong = CHECKS[name](text, recipe, template, finished)
        if wrong is not None:
            return wrong
    return None


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def _empty(text: str, *_: object) -> str | None:
    return None if words_of(text) else "the answer is empty"


def _characters(text: str, *_: object) -> str | None:
    """Replacement characters, lone surrogates and control characters are what is left of broken bytes."""
    broken = [
        c for c in text if c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and c not in "\n\t\r")
    ]
    return f"{len(broken)} characters are broken text (invalid UTF-8)" if broken else None


def _length(text: str, recipe: Captioning, _: Template, finished: bool) -> str | None:
    count = len(words_of(text))
    if not finished:
        return f"cut off at captioning.max_tokens={recipe.max_tokens} after {count} words"
    if not recipe.words_min <= count <= recipe.words_max:
        return f"{count} words, wanted {recipe.words_min} to {recipe.words_max}"
    return None if SENTENCE_END.search(clean(text)) else "the last sentence has no end"


def _language(text: str, recipe: Captioning, *_: object) -> str | None:
    letters = [c for c in text if c.isalpha()]
    latin = sum("LATIN" in unicodedata.name(c, "") for c in letters) / max(len(letters), 1)
    if latin < LATIN_MIN:
        return f"not English: {latin:.0%} of its letters are Latin"
    words = words_of(text)
    share = sum(word in STOP_WORDS for word in words) / max(len(words), 1)
    return f"not English prose: {share:.0%} of its words are function words" if share < STOP_WORDS_MIN else None


def _refusal(text: str, *_: object) -> str | None:
    found = REFUSAL.search(text)
    return f"a refusal: '{found[0]}'" if found else None


def _loop(text: str, *_: object) -> str | None:
    words = words_of(text)
    runs = Counter(tuple(words[i : i + LOOP_WORDS]) for i in range(len(words) - LOOP_WORDS + 1))
    run, times = max(runs.items(), key=lambda item: item[1], default=((), 0))
    if times >= LOOP_TIMES:
        return f"a loop: '{' '.join(run)}' {times} times"
    stutter = STUTTER.search(text)
    if stutter:
        return f"a loop: '{stutter[1]}' again and again"
    if len(words) >= LONG and len(set(words)) / len(words) < DISTINCT_MIN:
        return f"a loop: {len(set(words))} different words among {len(words)}"
    sentences = [s.strip().lower() for s in re.split(r"[.!?]+\s", text) if len(s.split()) > 3]
    sentence, times = Counter(sentences).most_common(1)[0] if sentences else ("", 0)
    return f"a loop: '{sentence[:60]}' {times} times" if times >= LOOP_TIMES else None


def _leak(text: str, _: Captioning, template: Template, *__: object) -> str | None:
    markup = MARKUP.search(text)
    if markup:
        return f"markup of a prompt: '{markup[0]}'"
    said = words_of(text)
    told = words_of(f"{template.system} {template.user}")
    known = {tuple(told[i : i + LEAK_WORDS]) for i in range(len(told) - LEAK_WORDS + 1)}
    for i in range(len(said) - LEAK_WORDS + 1):
        if tuple(said[i : i + LEAK_WORDS]) in known:
            return f"repeats the instructions: '{' '.join(said[i : i + LEAK_WORDS])}'"
    return None


def _speaks_of_video(text: str, *_: object) -> str | None:
    found = SPEAKS_OF_VIDEO.search(clean(text))
    return f"speaks of the video: '{found[0].strip()}'" if found else None


def _list(text: str, *_: object) -> str | None:
    items = len(LISTED.findall(text))
    return f"a list of {items} items, not a paragraph" if items > LISTED_MAX else None


Check = Callable[[str, Captioning, Template, bool], str | None]
#: By the names of the recipe (`captioning.checks`), in the order in which they are applied there.
CHECKS: dict[str, Check] = {
    "empty": _empty,
    "characters": _characters,
    "refusal": _refusal,
    "loop": _loop,
    "leak": _leak,
    "list": _list,
    "video": _speaks_of_video,
    "language": _language,
    "length": _length,
}
