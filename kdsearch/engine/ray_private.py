"""The private interfaces of Ray that the engine uses, written for Ray 2.60.

Ray has no public way to ask which job and actor made a placement group. Without these interfaces the places of a worker
group whose controller was killed stay taken until the study ends: slower, not wrong. On a Ray that lacks them a warning
is logged once, and nothing is freed.
"""

from __future__ import annotations

import logging
from functools import cache

import ray

WRITTEN_FOR = "2.60"
logger = logging.getLogger(__name__)


def free_orphaned_places() -> None:
    """Remove placement groups of this job whose creating actor is dead.

    Ray Train's own helper for this needs the dashboard's server, which a local cluster does not have. A controller may
    have been killed by the system for want of memory, for example.
    """
    try:
        from ray._private.state import state
        from ray._raylet import PlacementGroupID
        from ray.core.generated.gcs_pb2 import PlacementGroupTableData
        from ray.util.placement_group import PlacementGroup, remove_placement_group

        table = state._connect_and_get_accessor().get_placement_group_table()
    except (ImportError, AttributeError) as error:
        _warn(str(error))
        return
    job = ray.get_runtime_context().get_job_id()
    for data in table:
        group = PlacementGroupTableData.FromString(data)
        made_by_actor = set(group.creator_actor_id) != {0xFF}
        orphaned = group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED
        if made_by_actor and orphaned and group.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


@cache
def _warn(reason: str) -> None:
    logger.warning(
        "Ray %s lacks the private interfaces of Ray %s (%s): the resources of killed worker groups are freed only "
        "at the end of the study",
        ray.__version__, WRITTEN_FOR, reason,
    )  # fmt: skip
