"""README.md of a run: what it holds, for people, and in its head the data sets that Hugging Face's `datasets` finds.

Without it `load_dataset(RUN)` would guess from names of folders: it takes `validation` and drops the other sets.
"""

from __future__ import annotations

from typing import Any

import yaml

SET, VALIDATION = "sets/", "sets/validation"

PAGE = """# {title}

Made by Rushes; snapshot `{snapshot}`. What every column means is in the files' own metadata, and in docs/manifest.md.

| table | rows |
|---|---|
{rows}

The sets are nested: a clip of a later one is in the earlier ones too. Read one set, or tell them apart by the column
`set`. `media` is relative to this folder.

```python
from datasets import load_dataset

load_dataset("{root}", "{first}")  # this set as `train`, the held-out clips as `validation`
```
"""


def card(root: str, record: dict[str, Any]) -> str:
    """README.md for a commit record: a data set per table that has rows, the held-out clips beside each set."""
    filled = {name: table["files"] for name, table in record["tables"].items() if table["rows"]}
    sets = [name for name in filled if name.startswith(SET) and name != VALIDATION]
    first = [name for name in filled if name.startswith(SET)][:1] if not sets else []  # all clips are held out
    others = [name for name in filled if not name.startswith(SET)]
    configs = []
    for name in [*sets, *first, *others]:
        splits = [{"split": "train", "path": filled[name]}]
        if name in sets and VALIDATION in filled:
            splits.append({"split": "validation", "path": filled[VALIDATION]})
        configs.append({"config_name": name.removeprefix(SET), "data_files": splits})
    head = yaml.safe_dump({"configs": configs}, sort_keys=False) if configs else ""
    rows = "\n".join(f"| `{name}` | {table['rows']:,} |" for name, table in record["tables"].items())
    page = PAGE.format(
        title=root.rstrip("/").rpartition("/")[2] or root, snapshot=record["snapshot"], rows=rows,
        root=root, first=configs[0]["config_name"] if configs else "clips",
    )  # fmt: skip
    return f"---\n{head}---\n\n{page}" if head else page
