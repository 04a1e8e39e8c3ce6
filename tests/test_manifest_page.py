"""docs/manifest.md tells of every column, and each of its examples runs on a curated run.

`python -m tests.test_manifest_page` writes the page's dictionary anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rushes.curation import manifest, signals
from rushes.curation.card import card

PAGE = Path(__file__).parent.parent / "docs" / "manifest.md"
BETWEEN = re.compile(r"(?<=rushes\.curation\.signals -->\n).*?(?=<!-- end -->)", re.S)


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def example(title: str, name_space: dict) -> dict:
    """Run the examples below a heading, as one who pastes them would, and return the names that they leave."""
    section = re.search(rf"### {re.escape(title)}.*?\n(.*?)(?=\n##)", text(), re.S)[1]
    blocks = re.findall(r"```python\n(.*?)```", section, re.S)
    assert blocks, title
    for block in blocks:
        exec(compile(block, f"docs/manifest.md: {title}", "exec"), name_space)
    return name_space


@pytest.fixture
def names(curated) -> dict:
    return {"RUN": str(curated.root), "open_run": manifest.open_run}


def test_the_page_holds_the_dictionary_of_today():
    found = BETWEEN.search(text())
    assert found and found[0].strip() == signals.dictionary().strip(), "python -m tests.test_manifest_page writes it"


def test_every_column_that_is_published_is_declared(curated):
    for name in curated.run.tables:
        told = {column.name for column in signals.TABLES["sets/NAME" if name.startswith("sets/") else name]}
        assert set(curated.run.schema(name).names) == told, name


def test_the_run_and_pandas(names, curated):
    found = example("Rushes", names)
    assert "VMAF motion" in found["meaning"] and len(found["clips"]) == curated.run.record["tables"]["clips"]["rows"]
    found = example("pandas", names)
    sizes = curated.run.record["funnel"]["sets"]
    assert len(found["one"]) == sizes["pretrain-256"] and set(found["one"]["set"]) == {"pretrain-256"}
    assert found["every"].groupby("set").size().to_dict() == {name: size for name, size in sizes.items() if size}


def test_torch_reads_batches_of_one_shape(names):
    pytest.importorskip("torch")
    found = example("PyTorch: batches of one shape, decoded", names)
    assert found["frames"].shape[0] == 2 and found["frames"].shape[-1] == 3 and len(found["captions"]) == 2
    assert len(found["batches"]) == len(found["sampler"]) > 0 and all(
        len(set(batch)) == 1 for batch in found["batches"]
    )


def test_duckdb_joins_sets_and_clips(names, curated):
    found = example("DuckDB", names)
    assert found["lost"]["clips"].sum() == curated.run.record["tables"]["clips"]["rows"] and found["long"]


@pytest.mark.heavy
def test_datasets_finds_each_set_with_the_clips_held_out_and_mixes_none(names, curated, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = example("Hugging Face datasets", names)
    sizes = curated.run.record["funnel"]["sets"]
    rows = {split: table.num_rows for split, table in found["sets"].items()}
    assert rows == {"train": sizes["pretrain-256"], "validation": sizes["validation"]}
    assert set(found["sets"]["train"]["set"]) == {"pretrain-256"} and set(found["sets"]["validation"]["set"]) == {
        "validation"
    }
    assert len(found["clips"]) == curated.run.record["tables"]["clips"]["rows"]
    with pytest.raises(ValueError, match="pretrain-256"):
        datasets.load_dataset(str(curated.root))


@pytest.mark.heavy
def test_polars(names):
    pytest.importorskip("polars")
    found = example("polars", names)
    assert found["slow"].columns == ["clip_id", "vmaf_motion"]


@pytest.mark.heavy
def test_ray_data(names, curated):
    found = example("Ray Data", names)
    rows = curated.run.table("sets/pretrain-256", ["media_start_s", "media_end_s"]).to_pandas()
    assert found["hours"] * 3600 == pytest.approx((rows["media_end_s"] - rows["media_start_s"]).sum())


def test_the_card_lists_the_files_of_the_commit_record_and_no_empty_set():
    tables = {
        "clips": {"files": ["snapshots/1/clips/part-00000.parquet"], "rows": 9},
        "sets/a": {"files": ["snapshots/1/sets/a/part-00000.parquet", "/old/run/b.parquet"], "rows": 5},
        "sets/finetune": {"files": ["snapshots/1/sets/finetune/part-00000.parquet"], "rows": 0},
        "sets/validation": {"files": ["snapshots/1/sets/validation/part-00000.parquet"], "rows": 2},
    }
    page = card("s3://bucket/run: one", {"snapshot": "1", "tables": tables})
    configs = {config["config_name"]: config for config in yaml.safe_load(page.split("---")[1])["configs"]}
    assert list(configs) == ["a", "clips"]
    assert configs["a"]["data_files"] == [
        {"split": "train", "path": tables["sets/a"]["files"]},
        {"split": "validation", "path": tables["sets/validation"]["files"]},
    ]
    assert "| `sets/finetune` | 0 |" in page
    assert card("run", {"snapshot": "1", "tables": {}}).startswith("# run")


if __name__ == "__main__":
    PAGE.write_text(BETWEEN.sub(lambda _: signals.dictionary(), text()), encoding="utf-8")
