"""`rushes fit suitability`: a score that is trained on what people said."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rushes.pipelines.cli.finetune import Queue, ReviewsUrl, RunArgument, sentences
from rushes.pipelines.cli.terminal import console, tell


def suitability(
    run: RunArgument,
    queue: Queue = "finetune",
    reviews: ReviewsUrl = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A score that another run kept: it is applied, none is fitted.")
    ] = None,
) -> None:
    """How likely people accept a clip, learnt from their decisions: a column, a rule, and what is asked next.

    Example:  rushes fit suitability runs/first
    """
    from rushes.curation.manifest import open_run
    from rushes.pipelines import suitability as scores

    with sentences():
        from rushes.pipelines.finetune_queue import reviews_of
        from rushes.pipelines.review.filling import rerank
        from rushes.pipelines.review.said import reviewed

        found = open_run(run)
        if model is None:
            store, name = reviews_of(run, reviews)
            score, report, curve = scores.fit_suitability(found, reviewed(store, name, queue))
            kept = scores.keep(found, score, scores.as_report(report, curve))
            tell_fit(report, curve)
            tell(f"The score is kept as {kept} of {run}.")
        else:
            score, _ = scores.load(model)
        written, by_clip = scores.write_column(found, score)
        if model is None:
            moved = rerank(store, name, queue, scores.ranks(by_clip), written.snapshot)
            console.print(f"{moved} clips of the queue '{queue}' are asked in another order: the least sure first.")
    console.print(
        f"The column suitability of {run} is published ({len(by_clip)} clips, snapshot {written.snapshot}).  "
        f"Judge by it:  rushes judge {run} --set rules.suitability.min=0.5", highlight=False, soft_wrap=True,
    )  # fmt: skip


def tell_fit(report: Any, curve: list[dict[str, Any]]) -> None:
    auc = "not defined" if report.auc is None else f"{report.auc:.3f}"
    console.print(
        f"{report.decisions} decisions ({report.accepted} accepted) on {report.sources} sources; on sources left out: "
        f"AUC {auc}, error {report.error:.1%} (always the commoner answer: {report.error_of_the_commoner:.1%}), "
        f"Brier {report.brier:.3f}", highlight=False, soft_wrap=True,
    )  # fmt: skip
    for row in curve:
        ahead = "" if row["auc_later"] is None else f", {row['auc_later']:.3f} on what was decided later"
        console.print(f"  after {row['decisions']} decisions: AUC {row['auc']:.3f}{ahead}", highlight=False)
    console.print("  most weight: " + ", ".join(f"{name} {value:+.2f}" for name, value in
                                              list(report.weights.items())[:5]), highlight=False)  # fmt: skip
