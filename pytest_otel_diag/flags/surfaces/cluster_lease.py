"""A Kubernetes Lease, which keeps out runs that reach the same ConfigMap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pytest_otel_diag.flags.surfaces.cluster import Cluster, Conflict, NotFound, Resource

_TRIES = 3
_FASTER = "an unknown run that was faster"


class ClusterLease:
    """A Lease object of the cluster. The clocks of the hosts should agree within a few seconds."""

    def __init__(self, cluster: Cluster, place: Resource, *, now: Callable[[], int]) -> None:
        self._cluster = cluster
        self._place = place
        self._now = now

    async def acquire(self, owner: str, *, seconds: float) -> str | None:
        """Take or renew the lease for *seconds*; return None on success, else the current holder."""
        holder = _FASTER
        for _ in range(_TRIES):
            try:
                found = await self._cluster.get(self._place)
            except NotFound:
                found = {}
            holder = self._holder(found)
            if holder not in ("", owner):
                return holder
            body = self._body(owner, seconds, found)
            try:
                if found:
                    await self._cluster.replace(self._place, body)
                else:
                    await self._cluster.create(self._place, body)
            except (Conflict, NotFound):
                continue
            return None
        return holder or _FASTER

    async def release(self, owner: str) -> None:
        """Delete the lease if *owner* holds it; raises FlagError."""
        try:
            found = await self._cluster.get(self._place)
            if found["spec"].get("holderIdentity") == owner:
                await self._cluster.delete(self._place, str(found["metadata"]["resourceVersion"]))
        except (NotFound, Conflict):
            return

    def _holder(self, found: Mapping[str, Any]) -> str:
        """Return the holder, empty for a free or expired lease."""
        spec: Mapping[str, Any] = found.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime")
        if not holder or not renewed:
            return str(holder)
        until_s = datetime.fromisoformat(renewed).timestamp() + float(spec.get("leaseDurationSeconds") or 0)
        return str(holder) if self._now() / 1e9 < until_s else ""

    def _body(self, owner: str, seconds: float, found: Mapping[str, Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self._place.name, "namespace": self._place.namespace}
        spec: Mapping[str, Any] = found.get("spec") or {}
        if found:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        now = timestamp(self._now())
        ours = spec.get("holderIdentity") == owner
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": owner,
                "leaseDurationSeconds": max(1, math.ceil(seconds)),
                "acquireTime": spec.get("acquireTime", now) if ours else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if ours or not found else 1),
            },
        }


def timestamp(now_ns: int) -> str:
    """Return RFC 3339 with microseconds, since the server refuses leases with fewer digits."""
    return datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
