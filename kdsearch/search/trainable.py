"""The Tune trainable: a thin shell around a resident worker group, reused from trial to trial."""

from __future__ import annotations

from typing import Any

from ray import tune

from kdsearch.search.workers import Job, WorkerGroup


class StudentTrainable(tune.Trainable):  # type: ignore[misc]
    """One step is one epoch. With `reuse_actors=True` a new trial only sends its `Job` to the group already running.

    State is not kept in Tune checkpoints: the workers save a trial after every epoch under its own name in the run
    folder, so a retry by Tune, a new group or a new driver all go on from there.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.group = WorkerGroup(config["placement"], config["scratch"])
        self._begin(config["job"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config["job"])
        return True

    def _begin(self, job: Job) -> None:
        # A trial begins with its first step, so that a group that cannot start is a trial's failure, which Tune
        # retries, and not an actor's, which it does not.
        self.job = job
        self.started = False

    def step(self) -> dict[str, Any]:
        if not self.started:
            reply = self.group.start(self.job)
            self.started = True
            if "failed" not in reply and reply["epoch"] == 0:
                reply = self.group.epoch()
            # Else it stands at a checkpoint, whose epoch counts as this step: nobody may have heard of it.
        else:
            reply = self.group.epoch()
        return reply | {"done": True} if "failed" in reply else reply

    def cleanup(self) -> None:
        self.group.stop()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: see the class."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: see the class."""
