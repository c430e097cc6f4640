"""How many replicas a model needs: by the seconds of work that were accepted, not by the number of requests."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["BACKLOG", "BacklogPolicy"]

BACKLOG = "backlog_seconds"  # what replicas report


class BacklogPolicy:
    """A policy of Ray Serve: up at once, down one by one, and only when the rest would be half idle.

    Requests differ by two orders of magnitude in what they cost, so that counting them says little.

    Args:
        target: seconds of backlog that a replica should have before another one is started.
    """

    def __init__(self, target: float) -> None:
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The wanted number, within the deployment's bounds, and no state."""
        reported = (context.aggregated_metrics or {}).get(BACKLOG, {})
        total = sum(reported.values())
        current = context.target_num_replicas
        wanted = max(math.ceil(total / self._target), 1 if context.total_num_requests else 0)
        if wanted < current:
            fewer = current - 1
            wanted = (
                fewer if total <= self._target * fewer / 2 and (fewer or not context.total_num_requests) else current
            )
        return min(max(wanted, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}
