"""YAML of people's recipes: plain values of a bounded size, each key once. It imports nothing of ours.

A few lines of YAML can stand for billions of values (aliases of aliases), for themselves (an anchor inside itself) or
for a number that takes minutes to read; what is no recipe is refused before any of that is built.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where PyYAML was built with it: ten times faster
TEXT_BYTES = 1 << 20  # of a recipe
DEPTH_MAX = 32  # of what lies within each other
NODES_MAX = 50_000  # values, each counted as often as it is referred to
SCALAR_CHARACTERS = 20_000  # of one value
DIGITS_MAX = 300  # of a number: more than any float has
SHOWN = 120  # characters of a value in a sentence


class PlainYamlError(ValueError):
    """A text that is no plain YAML: the rest of a sentence that begins with the text's name."""


def load(text: str | bytes) -> Any:
    """Mappings, lists, strings, numbers, booleans and nulls of a YAML text. Raises PlainYamlError."""
    if len(text) > TEXT_BYTES:
        raise PlainYamlError(f"has {len(text):,} bytes; a recipe has at most {TEXT_BYTES:,}")
    try:
        _check_events(text)
        loader = LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeError, OverflowError, RecursionError) as error:
        raise PlainYamlError(f"is not valid YAML: {' '.join(str(error).split())[:300]}") from error
    except PlainYamlError:
        raise
    except ValueError as error:  # what looks like a date or a number and is none
        raise PlainYamlError(f"holds a value that cannot be read: {str(error)[:SHOWN]}") from error


def load_file(path: Any) -> Any:
    """See load; of a local file (a pathlib.Path). Raises PlainYamlError, OSError."""
    if not os.path.isfile(path):
        raise PlainYamlError("is not a file")
    with path.open("rb") as file:
        data = file.read(TEXT_BYTES + 1)
    try:
        return load(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"is not valid YAML: it is no UTF-8 text ({error.reason})") from error


def shown(value: Any) -> str:
    """A value as a sentence can show it, whatever its size."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _check_events(text: str | bytes) -> None:
    """How deep things lie within each other, before anything is built by recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise PlainYamlError(f"nests deeper than {DEPTH_MAX} levels, in line {event.start_mark.line + 1}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > SCALAR_CHARACTERS:
            raise PlainYamlError(
                f"holds a value of {len(event.value):,} characters in line {event.start_mark.line + 1}; at most "
                f"{SCALAR_CHARACTERS:,} are read"
            )


def _check(node: yaml.Node) -> None:
    """Aliases written out, keys, numbers. Raises PlainYamlError."""
    count, open_ = 0, [(node, frozenset())]
    while open_:
        node, above = open_.pop()
        count += 1
        if count > NODES_MAX:
            raise PlainYamlError(f"stands for more than {NODES_MAX:,} values")
        line = node.start_mark.line + 1
        if id(node) in above:
            raise PlainYamlError(f"holds itself, in line {line}")
        if isinstance(node, yaml.ScalarNode):
            number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
            if number and len(node.value) > DIGITS_MAX:
                raise PlainYamlError(f"holds a number of {len(node.value):,} digits in line {line}")
            continue
        within = above | {id(node)}
        if len(within) > DEPTH_MAX:
            raise PlainYamlError(f"nests deeper than {DEPTH_MAX} levels, in line {line}")
        if isinstance(node, yaml.SequenceNode):
            open_ += [(item, within) for item in node.value]
            continue
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise PlainYamlError(f"has a key that is no name, in line {key.start_mark.line + 1}")
            if key.value in seen:
                raise PlainYamlError(f"has the key '{key.value}' twice, in line {key.start_mark.line + 1}")
            seen.add(key.value)
            open_.append((value, within))
