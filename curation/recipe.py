"""One recipe is one reproducible data set: a YAML file, validated, resolved and hashed.

Thresholds belong to the judging, everything else to the measuring: each field (sections.py) carries the `part` of the
work that it changes, so that a new threshold never repeats a decode (`part_hash`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from rushes.curation import plain_yaml
from rushes.curation.nearest import meant, nearest
from rushes.curation.sections import (
    Bounds,
    Captioning,
    Content,
    Curriculum,
    Cut,
    Engine,
    Finetune,
    Models,
    Motion,
    Part,
    Scenes,
    Section,
    Visual,
    knob,
)

RECIPE_FOLDER = Path(__file__).parent / "recipes"

#: Bumped by whoever changes what a part of the work computes; old records of that part are then not reused.
PART_VERSIONS = {"observe": 16, "measure": 16, "look": 7, "content": 3, "cut": 5, "caption": 2}

MISTYPED = 0.9  # difflib's share of letters in common from which a name is taken for a slip
NAME_MAX, KEY_MAX = 4096, 200  # characters of a path, of a dotted key


class RecipeError(ValueError):
    """The recipe cannot be used as written. The message is one sentence that names the key and the fix."""


class Recipe(Section):
    name: str = knob("custom", "engine", "name of the recipe")
    meters: tuple[str, ...] = knob((), "observe", "meters of your own: 'package.module:Class'")
    rules: dict[str, Bounds] = knob({}, "judge", "rules on any column, after the built-in ones")
    formats: tuple[str, ...] = knob(
        (), "judge", "further formats that are opened, by FFmpeg's names; concat, hls and dash read other files"
    )
    scenes: Scenes = Scenes()
    visual: Visual = Visual()
    motion: Motion = Motion()
    models: Models = Models()
    content: Content = Content()
    cut: Cut = Cut()
    captioning: Captioning = Captioning()
    curriculum: Curriculum = Curriculum()
    finetune: Finetune = Finetune()
    engine: Engine = Engine()

    def needs_clip(self) -> bool:
        """Whether anything that is asked is answered by the CLIP."""
        models = self.models
        people = self.visual.people and models.people == "clip"
        flags = (models.nsfw, models.watermark, models.rendered)
        return models.semantic == "clip" or models.aesthetics != "measured" or people or any(flags)

    @model_validator(mode="after")
    def _models_are_named(self) -> Recipe:
        if self.needs_clip() and self.models.clip is None:
            raise ValueError("models.clip names no model, and a key of models asks for one, such as ViT-H-14-quickgelu")
        return self

    def part_hash(self, part: Part) -> str:
        """Hash of what changes `part` (fields, version, code of own meters): 12 hexadecimal digits.

        Work is keyed by (content of the source, this hash): see the sixth idea of docs/architecture.md.
        """
        fields = {key: value for key, (of, value) in flat(self).items() if of == part}
        code = [_code_of(path) for path in self.meters] if part == "observe" else []
        payload = json.dumps([PART_VERSIONS.get(part, 0), fields, *code], sort_keys=True, default=str)
        return hashlib.blake2b(payload.encode(), digest_size=6).hexdigest()

    def full_hash(self) -> str:
        """Hash of everything that decides the tables: all parts but the engine's."""
        fields = {key: value for key, (of, value) in flat(self).items() if of != "engine"}
        code = [_code_of(path) for path in self.meters]
        payload = json.dumps([PART_VERSIONS, fields, *code], sort_keys=True, default=str)
        return hashlib.blake2b(payload.encode(), digest_size=8).hexdigest()

    def get(self, key: str) -> Any:
        """Value at a dotted key, e.g. `motion.vmaf_min`. Raises RecipeError with the nearest valid key."""
        found: Any = self
        for name in key.split("."):
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, BaseModel) and name in type(found).model_fields:
                found = getattr(found, name)
            else:
                raise RecipeError(_unknown_key(key))
        return found

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _code_of(meter: str) -> str:
    """Text of the module that holds a meter of one's own: edit it, and what it measured is measured again."""
    try:
        spec = importlib.util.find_spec(meter.partition(":")[0])
        return Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin else ""
    except (ImportError, OSError, ValueError, UnicodeDecodeError):
        return ""  # no such module: whoever builds the meter says so


def flat(model: BaseModel, prefix: str = "") -> dict[str, tuple[str, Any]]:
    """Every leaf of a recipe: dotted key -> (part, JSON value)."""
    leaves: dict[str, tuple[str, Any]] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            leaves.update(flat(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = (field.json_schema_extra["part"], model.model_dump(mode="json")[name])
    return leaves


def recipe_path(folder: Path, name: str) -> Path:
    """That of a shipped recipe, or of a YAML file."""
    path = folder / f"{name}.yaml"
    return path if os.path.exists(path) else Path(os.path.expanduser(name))


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def load(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file by path, with `key=value` overrides applied.

    Raises RecipeError (one sentence, naming the nearest valid key) for anything that cannot be used.
    """
    if len(name_or_path) > NAME_MAX or "\0" in name_or_path:
        raise RecipeError(
            f"A recipe's name of {len(name_or_path):,} characters names no file: {name_or_path[:60]!r}..."
        )
    path = recipe_path(RECIPE_FOLDER, name_or_path)
    if os.path.isdir(path):
        raise RecipeError(
            f"The recipe '{name_or_path}' is a folder; name a YAML file or one of: {', '.join(shipped())}."
        )
    if not os.path.isfile(path):
        hint = meant(name_or_path, shipped(), "shipped recipes")
        raise RecipeError(f"There is no recipe '{name_or_path}': no shipped recipe and no such file; {hint}")
    try:
        data = plain_yaml.load_file(path) or {}
    except plain_yaml.PlainYamlError as error:
        raise RecipeError(f"Recipe {path} {error}.") from error
    except OSError as error:
        raise RecipeError(f"Recipe {path} cannot be read: {error.strerror}.") from error
    if not isinstance(data, dict):
        raise RecipeError(f"Recipe {path} must be a mapping of sections, not a {type(data).__name__}.")
    return build({"name": path.stem, **data}, overrides)


def build(data: dict[str, Any], overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A recipe from nested dictionaries and `key=value` overrides (values are read as YAML)."""
    base = _nested(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip() or len(key) > KEY_MAX:
            raise RecipeError(
                f"--set wants key=value, for example --set motion.vmaf_min=3, not '{override[:KEY_MAX]}'."
            )
        try:
            value = plain_yaml.load(text)
        except plain_yaml.PlainYamlError as error:
            raise RecipeError(f"--set {key.strip()}: the value {error}.") from error
        _assign(base, key.strip(), value)
    try:
        return Recipe.model_validate(base)
    except ValidationError as error:
        raise RecipeError(_sentence(error)) from error


def _nested(data: Any) -> Any:
    return {key: _nested(value) for key, value in data.items()} if isinstance(data, dict) else data


def _assign(base: dict[str, Any], key: str, value: Any) -> None:
    names = key.split(".")
    # The keys of `rules` are dotted themselves: finetune.rules.motion.static_max, curriculum.sets.NAME.rules.KEY
    if names[:2] == ["curriculum", "sets"] and len(names) > 4 and names[3] == "rules":
        names = [*names[:4], ".".join(names[4:])]
    if names[:2] == ["finetune", "rules"] and len(names) > 3:
        names = [*names[:2], ".".join(names[2:])]
    if names[:2] == ["finetune", "rules"] and "rules" not in base.get("finetune", {}):
        base.setdefault("finetune", {})["rules"] = Finetune().model_dump(mode="json")["rules"]
    if names[:2] == ["curriculum", "sets"] and "sets" not in base.get("curriculum", {}):
        defaults = Curriculum().model_dump(mode="json")["sets"]
        base.setdefault("curriculum", {})["sets"] = defaults
    if names[:2] == ["curriculum", "sets"] and len(names) > 2:
        _check_set_name(names[2], base["curriculum"]["sets"])
    here = base
    for name in names[:-1]:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            raise RecipeError(_unknown_key(key))
    here[names[-1]] = value


def _check_set_name(name: str, known: Any) -> None:
    """Raises RecipeError where an override would make a new set whose name is nearly that of one that is there."""
    if isinstance(known, dict) and name not in known and (near := nearest(name, known, MISTYPED)) is not None:
        raise RecipeError(
            f"The recipe has no set '{name}'; did you mean '{near}'? A new set of so like a name is written in a "
            "recipe's file."
        )


def _all_keys() -> list[str]:
    keys = list(flat(Recipe()))
    for name, spec in Curriculum().sets.items():
        keys += [f"curriculum.sets.{name}.{field}" for field in type(spec).model_fields]
    return keys


def _unknown_key(key: str) -> str:
    key = " ".join(key.split())[:KEY_MAX]
    keys = _all_keys()
    last = key.split(".")[-1]
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    near = near or [k for k in keys if k.split(".")[-1] == last][:1]
    near = near or [k for k in keys if difflib.get_close_matches(last, [k.split(".")[-1]], cutoff=0.6)][:1]
    hint = f" Did you mean '{near[0]}'?" if near else f" Sections: {', '.join(Recipe.model_fields)}."
    return f"The recipe has no key '{key}'.{hint}"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown_key(key)
    if first["type"] == "value_error":
        return f"Recipe section '{key}': {first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "recursion_loop":
        return f"Recipe key '{key}' holds itself."
    wants = re.sub(r" or instance of \w+", "", first["msg"].removeprefix("Input ")).replace("dictionary", "mapping")
    return f"Recipe key '{key}': {plain_yaml.shown(first['input'])} will not do; it {wants}."
