"""Trials of earlier versions of the space, imported into the sampler of the present one."""

from __future__ import annotations

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.search.evolution.space_mapping import SpaceMapping, differences, map_trial
from kdsearch.search.evolution.space_versions import SpaceExtension
from kdsearch.search.sampling.adapter import SamplerAdapter
from kdsearch.search.sampling.search_study import SearchStudy
from kdsearch.search.storage.trial_index import TrialIndex
from kdsearch.search.trial_record import TrialRecord


class TrialImporter:
    """Adds finished trials to the study `search` of `space` that its sampler did not draw."""

    def __init__(self, search: SearchStudy, space: SearchSpace, index: TrialIndex, adapter: SamplerAdapter) -> None:
        self._search, self._space, self._index, self._adapter = search, space, index, adapter

    def import_earlier(self, version: int) -> SpaceExtension:
        """Import all finished trials of earlier versions that are not imported yet; `version` is the present one."""
        extension = SpaceExtension(version)
        present = set()
        for trial in self._search.get_trials(deepcopy=False):
            present.add(trial.user_attrs.get("imported"))
            present.add(trial.user_attrs.get("trial", {}).get("id"))
        for record in self._index.trials:
            if record.stage != "search" or record.id in present:
                continue
            if record.state == "RUNNING":
                extension.running.append(record.id)
            elif reason := self.import_finished(record):
                extension.skipped[record.id] = reason
            else:
                extension.imported += 1
        return extension

    def import_finished(self, record: TrialRecord) -> str:
        """Import one finished trial of an earlier version; the reason if that is not possible, else empty."""
        mapping = map_trial(self._space, record.config, record.params)
        if not mapping.exact:
            return "; ".join(differences(mapping, record.config)[:3])
        if record.state == "FAIL":
            return f"it failed: {record.reason}"
        runnable = record.id not in self._index.unrunnable
        if record.state == "INFEASIBLE" and runnable and not self._index.exceeds_bounds(record):
            return "no constraint excludes it any more: it may be drawn again"
        self.inform_sampler(mapping, record)
        return ""

    def inform_sampler(self, mapping: SpaceMapping, record: TrialRecord) -> None:
        """Add the trial for the sampler alone: it does not become a record of this study."""
        self._adapter.add(mapping, record, {"imported": record.id}, record.id in self._index.unrunnable)
