"""`rushes concepts` and `rushes near`: what a run holds, and which clips are like another."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rushes.pipelines.cli.terminal import console, fail, tell

COUNTS_FROM = 60  # columns of a terminal on which all counts of a concept have room
SPANS_FROM = 80  # columns of a terminal on which a clip's place in its source stands beside its id
CAPTIONS_FROM = 100  # columns of a terminal on which captions have room


def concepts(
    run: Annotated[str, typer.Argument(help="A run's folder, or its s3:// or gs:// address.")],
    most: Annotated[int, typer.Option("--limit", "-n", min=1, help="Concepts listed, the largest first.")] = 40,
    json_: Annotated[bool, typer.Option("--json", help="All of them, as JSON.")] = False,
) -> None:
    """What a run shows: its concepts in words, with the clips kept and dropped of each.

    Example:  rushes concepts runs/first
    """
    from rich.table import Table

    from rushes.curation.manifest import open_run
    from rushes.pipelines.view.concepts import concepts as concepts_of

    found = concepts_of(open_run(run))
    if json_:
        typer.echo(json.dumps([concept.as_dict() for concept in found], ensure_ascii=False, indent=1))
        return
    if not found:
        console.print("No clip was looked at, so there are no concepts: `rushes funnel` says why they were rejected.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("concept", justify="right")
    tower = any(one.seen for one in found)
    if tower:
        table.add_column("seen", overflow="fold")
    table.add_column("words", overflow="fold")
    for name in ("measured", "clips", "kept", "dropped"):
        table.add_column(name, justify="right")
    for one in found[:most]:
        counts = (one.measured, one.clips, one.sampled, one.dropped)
        words = ([one.seen] if tower else []) + [one.words or "[dim]no captions[/]"]
        table.add_row(str(one.cluster_id), *words, *(f"{count:,}" for count in counts))
    if console.is_terminal and console.width < COUNTS_FROM:
        for one in found[:most]:
            tell(f"{one.cluster_id}  {one.clips:,} clips, {one.sampled:,} kept, {one.dropped:,} dropped")
            tell("\n".join(f"   {words}" for words in (one.seen, one.words or "no captions") if words))
    else:
        console.print(table)
    if len(found) > most:
        console.print(f"[dim]... and {len(found) - most:,} more: --limit, or --json[/]")


def near(
    run: Annotated[str, typer.Argument(help="A run's folder, or its s3:// or gs:// address.")],
    clip: Annotated[str | None, typer.Option("--clip", metavar="ID", help="Like this clip of the run.")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="FILE", help="Like this picture.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="What this text says; needs a text tower.")] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="The run's CLIP, if it lies elsewhere on this machine."),
    ] = None,
    k: Annotated[int, typer.Option("--limit", "-n", min=1, help="Clips listed.")] = 10,
    set_: Annotated[str | None, typer.Option("--in", metavar="SET", help="Only clips of this set.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """The clips of a run that are nearest in content to a clip, a picture or a text.

    Example:  rushes near runs/first --clip 4f2a9c... --in pretrain-256
    """
    from rich.table import Table
    from rich.text import Text

    from rushes.curation.manifest import open_run
    from rushes.pipelines.view.near import made_by
    from rushes.pipelines.view.near import near as near_to

    if sum(one is not None for one in (clip, image, text)) != 1:
        fail("Name one of --clip ID, --image FILE and --text TEXT.")
    opened = open_run(run)
    rows = near_to(opened, k, clip=clip, image=image, text=text, among=set_, weights=weights)
    if json_:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for name in ("cosine", "clip"):
        table.add_column(name, no_wrap=True)
    table.add_column("span", overflow="fold", ratio=1)
    table.add_column("kept", no_wrap=True)
    if console.width >= CAPTIONS_FROM:
        table.add_column("caption", overflow="ellipsis", no_wrap=True, ratio=2)
    narrow = console.is_terminal and console.width < SPANS_FROM
    for row in rows:
        kept = "yes" if row["kept"] else row["rejected_by"] or "no"
        span = f"{row['start_s']:.1f}-{row['end_s']:.1f} s of {row['uri'].rsplit('/', 1)[-1]}"
        caption = [Text(row["caption"] or "")] * (console.width >= CAPTIONS_FROM)
        table.add_row(f"{row['cosine']:.3f}", row["clip_id"], Text(span), kept, *caption)
        if narrow:
            tell(f"{row['cosine']:.3f}  {row['clip_id']}")
            tell(f"   {span}: {'kept' if row['kept'] else kept}")
    if not narrow:
        console.print(table)
    console.print(f"[dim]by {made_by(opened)}[/]", highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands to the command `rushes`."""
    app.command()(concepts)
    app.command()(near)
