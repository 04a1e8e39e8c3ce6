"""What the tests run on several gloo ranks: `python -m tests.model.rank_job JOB ...` under a launcher's variables."""

from __future__ import annotations

import os
import signal
import sys

import torch

torch.set_num_threads(1)


def train(run: str, tae: str, output: str, kill_after: str, *overrides: str) -> None:
    """Train the small transformer; every rank is killed when it begins the step after `kill_after` (0: it finishes)."""
    from rushes.model.loop import Session
    from rushes.model.train import train_dit
    from tests.model.small_run import dit_recipe

    one_step = Session._step

    def deadly(self, *arguments):
        if self.progress.step == int(kill_after) > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return one_step(self, *arguments)

    Session._step = deadly
    train_dit(dit_recipe(*overrides), [run], output, tae)


def train_tae(run: str, output: str) -> None:
    """Train the small autoencoder against a discriminator."""
    from rushes.model import train
    from tests.model.small_run import tae_recipe
    from tests.model.test_train import ADVERSARIAL, BATTLE

    train.train_tae(tae_recipe(*ADVERSARIAL, **BATTLE), [run], output)


def killed_saving(folder: str) -> None:
    """A save that fails on one rank fails on both; the next is published; they are killed while one is written."""
    from pathlib import Path

    from rushes.model.checkpoint import CheckpointError, Saver
    from rushes.model.parallel import joined

    with joined() as place:
        (no_folder := Path(folder) / "file").touch()
        bad = Saver(folder if place.leads else no_folder, keep=3)
        bad.save({"ema": {"w": torch.zeros(2)}}, {"step": 9})
        try:
            bad.finish()
        except CheckpointError as error:
            assert "cannot be saved" in str(error)
        else:
            raise SystemExit("a rank did not hear that the other could not save")
        no_folder.unlink(missing_ok=True)
        saver = Saver(folder, keep=3)
        saver.save({"ema": {"w": torch.full((4, 2), 5.0)}}, {"step": 1})
        saver.save({"ema": {"w": torch.zeros(64 << 20)}}, {"step": 2})
        while not list(Path(folder).glob(".step-00000002.tmp/*.distcp")):
            pass
        os.kill(os.getpid(), signal.SIGKILL)


def unsharded(model: torch.nn.Module) -> int:
    """Numbers of whole gradients that FSDP keeps at this rank."""
    from torch.distributed.fsdp import FSDPModule

    held = 0
    for module in model.modules():
        group = module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None
        for one in group.fsdp_params if group else ():
            whole = getattr(one, "_unsharded_param", None)
            for gradient in (one.unsharded_accumulated_grad, None if whole is None else whole.grad):
                held += 0 if gradient is None else gradient.numel()
    return held


def layouts(file: str) -> None:
    """By layout: loss, norm, gradients, weights after one step and fresh weights of a DiT that the ranks share."""
    from rushes.model.parallel import average_gradients, joined, mean_over_ranks, parallelize, placed, reduce_gradients
    from rushes.model.trained import Trained
    from tests.model.test_parallel import CLIPPED, LAYOUTS, batch_of, fresh_dit, loss_of, small_dit

    found = {}
    with joined() as everyone:
        for name, plan in LAYOUTS.items():
            place = placed(plan, everyone.rank, everyone.world, everyone.device)
            model = small_dit()
            parallelize(model, place)
            trained = Trained(model, CLIPPED)
            held, seen = 0, []
            model.blocks[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].shape[1]))
            for last in (False, True):  # the same clips twice, half of the loss each time
                reduce_gradients(model, last)
                loss = loss_of(model, batch_of(place.data_rank, place.data_world))
                (loss / 2).backward()
                held += unsharded(model)
            gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
            norm = trained.step(1e-3, 0)
            fresh = fresh_dit(place)
            found[name] = {
                "loss": mean_over_ranks(loss.detach()), "norm": norm, "gradients": gradients, "held": held,
                "tokens": seen[0],
                "weights": {name: p.full_tensor() for name, p in model.state_dict().items()},
                "fresh": {name: p.full_tensor() for name, p in fresh.state_dict().items()},
            }  # fmt: skip
        replica = small_dit()
        loss = loss_of(replica, batch_of(everyone.rank, everyone.world))
        loss.backward()
        average_gradients(replica)
        own = {name: p.grad for name, p in replica.named_parameters()}
        found["replicated"] = {"loss": mean_over_ranks(loss.detach()), "gradients": own}
        if everyone.leads:
            torch.save(found, file)


if __name__ == "__main__":
    {"train": train, "train_tae": train_tae, "killed_saving": killed_saving, "layouts": layouts}[sys.argv[1]](
        *sys.argv[2:]
    )
