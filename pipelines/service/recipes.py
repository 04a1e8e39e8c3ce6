"""Recipes from a request: shipped ones with changed keys, and nothing that runs code or reads files unless allowed."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

from pydantic import BaseModel

from rushes.curation import recipe as recipes
from rushes.curation.recipe import Recipe, RecipeError

#: Texts that name no code, file, server or variable.
HARMLESS = frozenset(("name",))
#: Numbers that would let a job take the machine from others.
OWNED = ("engine.",)
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def recipe_from(name: str, changes: dict[str, Any], allow_code: bool) -> Recipe:
    """The shipped recipe `name` with `changes` by dotted key. Raises RecipeError.

    Keys that hold free text (meters, commands, files, servers, variables) and those of the engine may differ from the
    shipped recipe's only where code is allowed: each could run, read or send what its author could not.
    """
    if name not in recipes.shipped():
        raise RecipeError(f"There is no shipped recipe '{name[:60]}'; recipes: {', '.join(recipes.shipped())}.")
    base = recipes.load(name)
    built = recipes.load(name, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    for of in built.curriculum.sets:
        if not _SET_NAME.fullmatch(of):
            raise RecipeError(f"'{of[:60]}' is no name for a set: letters, digits, . _ and - will do.")
    if not allow_code:
        before, after = leaves(base), leaves(built)
        for key in [*after, *before]:
            if before.get(key) != after.get(key) and (key in free_text(built) or key.startswith(OWNED)):
                raise RecipeError(f"The recipe key '{key}' may not be set here: the service runs without --allow-code.")
    return built


def leaves(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> JSON value, down to fields that are no sections."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found.update(leaves(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = model.model_dump(mode="json")[name]
    return found


def free_text(model: BaseModel, prefix: str = "") -> set[str]:
    """Dotted keys of fields that can hold any text, alone or in a list or a mapping's values."""
    found = set()
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found |= free_text(value, f"{prefix}{name}.")
        elif prefix + name not in HARMLESS and _holds_text(field.annotation):
            found.add(prefix + name)
    return found


def _holds_text(kind: Any) -> bool:
    """Whether a field of this type can hold free text; a type that is not known here counts as one that can."""
    if kind in (int, float, bool, type(None), ...):
        return False
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return False
    if origin is dict:
        return _holds_text(arguments[1])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return any(_holds_text(field.annotation) for field in kind.model_fields.values())
    return any(_holds_text(one) for one in arguments) if arguments else True
