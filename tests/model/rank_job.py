"""What the tests run on several gloo ranks: `python -m tests.model.rank_job JOB ...` under a launcher's variables."""

from __future__ import annotations

import os
import signal
import sys

import torch

torch.set_num_threads(1)


def train(run: str, tae: str, output: str, kill_after: str) -> None:
    """Train the small transformer; every rank is killed when it begins the step after `kill_after`."""
    from model.loop import Session
    from model.train import train_dit
    from tests.model.small_run import dit_recipe

    one_step = Session._step

    def deadly(self, *arguments):
        if self.progress.step == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)
        return one_step(self, *arguments)

    Session._step = deadly
    train_dit(dit_recipe(), [run], output, tae)


def gradients(file: str) -> None:
    """Loss and gradients of a sharded and of a replicated transformer, each rank with its half of the batch."""
    from model.parallel import average_gradients, joined, mean_over_ranks, shard
    from tests.model.test_parallel import batch_of, loss_of, small_dit

    with joined() as place:
        model = small_dit()
        shard(model)
        loss = loss_of(model, batch_of(place.rank, place.world))
        loss.backward()
        full = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        replica = small_dit()
        loss_of(replica, batch_of(place.rank, place.world)).backward()
        average_gradients(replica)
        own = {name: p.grad for name, p in replica.named_parameters()}
        mean = mean_over_ranks(loss.detach())
        if place.leads:
            torch.save({"loss": mean, "gradients": full, "replicated": own}, file)


if __name__ == "__main__":
    {"train": train, "gradients": gradients}[sys.argv[1]](*sys.argv[2:])
