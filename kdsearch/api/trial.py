"""One trial of a study, read from its run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.trial_record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

    from kdsearch.models.student import Student


class Trial:
    """A trial as the run folder has it at the moment of reading."""

    def __init__(self, record: TrialRecord, run: RunFolder) -> None:
        self._record, self._run = record, run

    @property
    def id(self) -> str:
        """Its id, such as `t0007`."""
        return self._record.id

    @property
    def state(self) -> str:
        """`RUNNING`, `COMPLETE`, `PRUNED`, `INFEASIBLE` or `FAIL`."""
        return self._record.state

    @property
    def stage(self) -> str:
        """`search`, `confirm` (a repeat with another seed) or `control` (the same student without distillation)."""
        return self._record.stage

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that the sampler drew."""
        return dict(self._record.params)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last epoch, and the costs as `cost/...`."""
        return self._record.metrics | {f"cost/{name}": value for name, value in self._record.cost.items()}

    @property
    def values(self) -> dict[str, float]:
        """The objectives and other costs by name: `miou`, `gflops`, ..."""
        return self._record.values()

    @property
    def config(self) -> TrialConfig:
        """Its whole configuration; `kdsearch.train` accepts it."""
        return self._record.config

    @property
    def reason(self) -> str:
        """The reason of `FAIL` and `INFEASIBLE`; else empty."""
        return self._record.reason

    def history(self) -> pd.DataFrame:
        """mIoU on the validation split by epoch, a data frame with the index `epoch`."""
        import pandas as pd

        curve = dict(sorted(self._record.curve.items()))
        return pd.DataFrame({"miou": list(curve.values())}, index=pd.Index(list(curve), name="epoch"), dtype=float)

    def student(self) -> Student:
        """Its trained student. `UserError` where its weights were not kept: only those of the frontier are."""
        from kdsearch.models.student import load_student

        folder = self._run.student(self.id)
        if not folder.is_dir():
            raise UserError(
                f"The weights of {self.id} were not kept (only those of the frontier are); train it again with "
                "kdsearch.train(trial.config, out=...)."
            )
        return load_student(folder)

    def __repr__(self) -> str:
        known = ", ".join(f"{name}={value:.4g}" for name, value in self.values.items())
        return f"Trial({self.id!r}, {self.state}, {known})"
