"""The training loop that both models share: one optimizer step after another, and what must survive a kill.

A model brings `backward(batch, step)`, which leaves gradients of the global batch's mean loss, and `validate()`.
Everything else is here: clipping, learning rate, moving average, log, validation, checkpoints, stopping. A step's
numbers depend on (recipe, data, step) alone, so a run that was killed goes on as if it had not been.

The host never waits for the step it has just handed to the device: it reads the numbers of the one before (`_Step`).
Only where a validation, a checkpoint or the end asks for them are they read at once, so nothing that is kept is built
on a step whose loss or gradient was not finite.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite as finite
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rushes.curation.manifest import ManifestError
from rushes.model import checkpoint as checkpoints
from rushes.model import store
from rushes.model.checkpoint import Checkpoint, Saver
from rushes.model.data import Batch, Loader
from rushes.model.journal import Journal
from rushes.model.parallel import Place, mean_over_ranks, reshard
from rushes.model.stages import Progress, learning_rate, note_validation, warmup_of
from rushes.model.steps import Backward, to_device
from rushes.model.train_recipe import Stage, TrainRecipe
from rushes.model.trained import Trained

Say = Callable[[str], None]
Flops = Callable[[Batch, dict[str, Any]], float | None]


class TrainingError(RuntimeError):
    """A training that cannot go on: one sentence."""


@dataclass
class _Step:
    """A step that was handed to the device: its line of the log, and its numbers on their way to the host."""

    entry: dict[str, Any]
    batch: Batch
    failed: list[str]  # clips of this rank that could not be decoded
    terms: tuple[str, ...]  # names of the first values: means over ranks
    values: Tensor  # float32: terms, stop flag, save failed, undecodable clips, norms of gradients
    arrived: torch.cuda.Event | None


def _shapes(batch: Batch) -> str:
    return " + ".join(f"{group.shape}" for group in batch.groups)


def _clips(step: _Step) -> str:
    return ", ".join(sample.clip_id for sample in step.batch.samples)


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values on the CPU once the event has come; at once where there is none."""
    if not values.is_cuda:
        return values, None
    here, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()
    return here, arrived


def _of_all_ranks(texts: list[str]) -> list[str]:
    """Each text of any rank once; ranks that read the same clips tell the same."""
    everyone: list[list[str]] = [texts]
    if dist.is_initialized():
        everyone = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyone, texts)
    return list(dict.fromkeys(text for some in everyone for text in some))


@contextmanager
def _collected_by_hand() -> Iterator[None]:
    """No garbage collection in the middle of a step, which would hold up all ranks; validations call for one."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


TELL_EVERY_S = 15.0  # a step is told of that often, beside every validation


class Session:
    """One `rushes train`, from start or resume to its end: output folder, log, checkpoints, stop signal."""

    def __init__(self, recipe: TrainRecipe, output: str, place: Place, say: Say) -> None:
        self.recipe, self.place, self.say = recipe, place, say if place.leads else lambda _: None
        self._told = time.perf_counter()  # when a step was told of last
        self.output = output.rstrip("/") if "://" in output else os.path.abspath(os.path.expanduser(output))
        self.stopping = False
        self.facts: dict[str, Any] = {}  # what checkpoints say beside progress: model, config, data, tae
        found = checkpoints.published(self.output)
        self.resumed: Checkpoint | None = checkpoints.open_checkpoint(self.output, self.say) if found else None
        fields = Progress.__dataclass_fields__
        self.progress = Progress(**{k: self.resumed.meta[k] for k in fields}) if self.resumed else Progress()
        if place.leads:
            try:
                store.write_bytes(store.join(self.output, "recipe.yaml"), recipe.to_yaml().encode())
                self._journal = Journal(self.output, self.progress.step)
            except (OSError, ManifestError) as error:
                raise TrainingError(f"{output} cannot be written: {error}.") from error
        self._board = _tensorboard(self.output, self.progress.step) if place.leads else None
        self.saver = Saver(store.join(self.output, "checkpoints"), recipe.keep)

    def log(self, entry: dict[str, Any]) -> None:
        """One line of log.jsonl; numbers go to TensorBoard too where it is installed."""
        if not self.place.leads:
            return
        try:
            self._journal.write(entry)
            for name, value in entry.items() if self._board else ():
                if isinstance(value, float | int) and name != "step":
                    self._board.add_scalar(name, value, entry["step"])
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> TrainingError:
        return TrainingError(
            f"The log of {self.output} cannot be written ({error}); mend that and start the same command again: it "
            "goes on from the last checkpoint."
        )

    def save(self, trained: dict[str, Trained]) -> None:
        """Begin to write a checkpoint of this step, and let TensorBoard see what was logged until here.

        Raises CheckpointError where the one before failed.
        """
        try:
            if self._board:
                self._board.flush()
            if self.place.leads:
                self._journal.flush()
        except (OSError, ManifestError) as error:
            raise self._unwritten(error) from error
        state = {name: one.state() for name, one in trained.items()}
        first = state.pop(next(iter(state)))
        meta = {**self.facts, **asdict(self.progress)}
        self.saver.save({**first, **state}, meta)

    def run_stage(
        self,
        stage: Stage,
        loader: Loader,
        trained: dict[str, Trained],
        backward: Backward,
        validate: Callable[[], float | None],
        prepare: Callable[[Batch], Any] | None = None,
        flops: Flops | None = None,
    ) -> bool:
        """The steps of a stage that are left; False where a signal ended it (a checkpoint was saved).

        trained: the model first; others (a discriminator) take part in steps that leave them gradients.
        prepare: of Loader.batches. flops(batch, terms): the share of the device's peak that a step of one second has.
        Raises TrainingError where more steps than Optimizer.skip_max had a loss or a gradient that was not finite, and
        leaves the last checkpoint as it was.
        """
        progress, held, stop = self.progress, None, False
        with _collected_by_hand(), self._saves_ended():
            before = time.perf_counter()
            for batch in loader.batches(range(progress.stage_step, stage.steps), prepare):
                waited = time.perf_counter() - before
                lr = learning_rate(stage, progress.stage_step, progress.factor, warmup_of(self.recipe, progress.stage))
                step = self._step(batch, trained, backward, lr)
                progress.step, progress.stage_step = progress.step + 1, progress.stage_step + 1
                step.entry |= {"step": progress.step, "stage": stage.name, "lr": lr, "shape": _shapes(batch)}
                if held is not None:
                    stop = self._settle(held)
                    self._log_step(held, flops)
                last = progress.stage_step == stage.steps
                validates = last or progress.stage_step % stage.validate_every == 0
                saves = last or progress.stage_step % stage.save_every == 0
                held = step
                if validates or saves or stop:
                    stop = self._settle(step) or stop
                    held = None
                took = time.perf_counter() - before
                step.entry |= {"step_s": round(took, 4), "data_wait_s": round(waited, 4)}
                if self.place.device.type == "cuda":
                    step.entry["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
                if validates:
                    step.entry["validation"] = self._validate(stage, trained, validate)
                    self._tell(step)
                    gc.collect()
                if held is None:
                    self._log_step(step, flops)
                if saves or stop:
                    self.save(trained)
                if stop and not last:
                    return False
                before = time.perf_counter()
        return not stop

    def _step(self, batch: Batch, trained: dict[str, Trained], backward: Backward, lr: float) -> _Step:
        """Hand one step to the device; its numbers are read by `_settle`."""
        terms = backward(batch, self.progress.stage_step)
        failed = [text for sample in batch.samples for text in sample.failed]
        flags = torch.tensor([self.stopping, self.saver.failed, len(failed)], dtype=torch.float32)
        told = torch.cat([torch.stack([v.float() for v in terms.values()]), to_device(flags, self.place.device)])
        means = mean_over_ranks(told)
        broken = ~means[: len(terms)].isfinite().all()
        norms = [
            one.step(lr, self.progress.stage_step, broken)
            for one in trained.values()
            if any(p.grad is not None for p in one.model.parameters())
        ]
        values = torch.cat([means, torch.stack(norms).float()])
        return _Step({}, batch, failed, tuple(terms), *_to_host(values))

    def _settle(self, step: _Step) -> bool:
        """Wait for the step's numbers and put them into its entry; all ranks at once.

        True where a signal to one rank asks all of them to stop. Raises TrainingError past the budget of steps that
        were left out, CheckpointError where a checkpoint could not be written.
        """
        if step.arrived is not None:
            step.arrived.synchronize()
        values = step.values.tolist()
        means = dict(zip(step.terms, values))
        stopping, unsaved, failed, *norms = values[len(means) :]
        wrong = next(
            (f"{k} is {v}" for k, v in [*means.items(), *(("gradient", n) for n in norms)] if not finite(v)), ""
        )
        head = {name: step.entry[name] for name in ("step", "stage")}
        numbers = {name: value if finite(value) else None for name, value in {**means, "gradient": norms[0]}.items()}
        step.entry = {**head, **numbers, **step.entry}
        if wrong:
            step.entry["skipped"] = wrong
            self.progress.skipped += 1
            self.say(f"Step {step.entry['step']} is left out: the {wrong} (clips {_clips(step)}).")
            if self.progress.skipped > self.recipe.optimizer.skip_max:
                raise TrainingError(self._not_finite(wrong, step))
        if failed:
            step.entry["undecodable"] = _of_all_ranks(step.failed)
        if unsaved:
            self.saver.finish()
        return stopping > 0

    @contextmanager
    def _saves_ended(self) -> Iterator[None]:
        """At the end the last checkpoint is published; an error that ends the stage waits for what is in flight."""
        try:
            yield
        except BaseException:
            self.saver.wait()
            raise
        self.saver.finish()

    def _tell(self, step: _Step) -> None:
        self.say(_line(step.entry))
        self._told = time.perf_counter()

    def _log_step(self, step: _Step, flops: Flops | None) -> None:
        if "validation" not in step.entry and time.perf_counter() - self._told > TELL_EVERY_S:
            self._tell(step)
        share = flops(step.batch, step.entry) if flops else None
        self.log({**step.entry, "mfu": None if share is None else round(share / step.entry["step_s"], 4)})

    def _not_finite(self, wrong: str, step: _Step) -> str:
        self.saver.wait()
        found = checkpoints.published(self.output)
        kept = f"the last good checkpoint is {found[-1]}" if found else "no checkpoint was written yet"
        return (
            f"The {wrong} at step {step.entry['step']} (clips {_clips(step)}), and {self.progress.skipped} steps were "
            f"left out, more than optimizer.skip_max = {self.recipe.optimizer.skip_max}; {kept}: lower the learning "
            "rate or the gradient clip, and start the same command again."
        )

    def _validate(
        self, stage: Stage, trained: dict[str, Trained], validate: Callable[[], float | None]
    ) -> float | None:
        model = next(iter(trained.values())).model
        model.eval()
        with torch.no_grad():
            loss = validate()
        reshard(model)
        model.train()
        if loss is not None and note_validation(self.progress, stage, loss):
            self.say(f"No progress in {stage.patience} validations: the learning rate is halved.")
        return loss


@contextmanager
def stop_on_signal(session: Session) -> Iterator[None]:
    """SIGTERM and Ctrl-C let the step end, save, and leave; where signals can be caught (the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        session.stopping = True

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _tensorboard(output: str, step: int) -> Any | None:
    """None where it is not installed, and on object stores, whose files cannot be appended to."""
    if not store.is_local(output):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(f"{output}/tensorboard", purge_step=step + 1)  # as Journal


def _line(entry: dict[str, Any]) -> str:
    numbers = {name: entry[name] for name in ("loss", "validation") if name in entry}
    told = "  ".join(f"{name} {'none' if value is None else f'{value:.5f}'}" for name, value in numbers.items())
    return (
        f"{entry['stage']:>16} step {entry['step']:>7}  {told}  "
        f"lr {entry['lr']:.2e}  {entry['step_s']:.2f} s/step, {entry['data_wait_s']:.2f} s of it waiting for data"
    )
