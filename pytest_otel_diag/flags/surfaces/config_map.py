"""Flags in a Kubernetes ConfigMap, as the demo's Helm chart has them.

``configmap:NAMESPACE[/NAME[/KEY]][?OPTION=VALUE&…]``, by default ``flagd-config`` and its
``demo.flagd.json``. The options are

- ``context``, ``kubeconfig``: the cluster; by default the current context, or the cluster this runs in.
- ``rollout``: what to restart so that it loads the document, ``deployment/flagd`` by default; ``none`` where
  flagd watches the mounted ConfigMap itself. The chart's flagd copies it when its pod starts.
- ``restart``: more deployments, separated by commas, for services that cache flags; restarted after flagd.
- ``rollout_s``: the longest wait for one rollout, 180 by default.

A write carries the version that was read, so a change in between raises LostUpdate and nothing is written.
Pods are restarted as by ``kubectl rollout restart``, with annotations of the pod template. One of these is
the hash of the document, which shows a process that heals whether the pods run with the current document. The
annotations stay.

A rollout of flagd closes the services' connections to it: for some seconds they log errors and use their
defaults. Where that spoils a session, write through the flagd-ui of the pod instead.

The lease is a ``coordination.k8s.io`` Lease named ``otel-diag-NAME`` in the same namespace.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate, nearest
from pytest_otel_diag.flags.comparison import differing
from pytest_otel_diag.flags.surface import Moved, RemoteLease
from pytest_otel_diag.flags.surfaces.cluster import Cluster, Conflict, Resource
from pytest_otel_diag.flags.surfaces.cluster_lease import ClusterLease, timestamp

_HASH = "otel-diag/flags-sha256"
_RESTARTED = "kubectl.kubernetes.io/restartedAt"
_OPTIONS = ("context", "kubeconfig", "rollout", "restart", "rollout_s")
_DEPLOYMENT = "deployment/"


@dataclass(frozen=True)
class Address:
    """The parsed ``configmap:…``; ``rollout`` is empty where nothing is restarted."""

    namespace: str
    name: str = "flagd-config"
    key: str = "demo.flagd.json"
    context: str = ""
    kubeconfig: str = ""
    rollout: str = "flagd"
    restart: tuple[str, ...] = ()
    rollout_s: float = 180.0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address of the text; raises ConfigurationError."""
        place, _, query = text.partition("?")
        parts = [part for part in place.strip("/").split("/") if part]
        if not 1 <= len(parts) <= 3:
            raise ConfigurationError(
                f"flags: configmap:{text} does not name a ConfigMap; write configmap:NAMESPACE/NAME or "
                "configmap:NAMESPACE/NAME/KEY"
            )
        given: dict[str, str] = dict(parse_qsl(query, keep_blank_values=True))
        for option in given:
            if option not in _OPTIONS:
                raise ConfigurationError(
                    f"flags: configmap:{text} has the unknown option {option!r}{nearest(option, _OPTIONS)}; "
                    f"choose from {', '.join(_OPTIONS)}"
                )
        values: dict[str, Any] = dict(zip(("namespace", "name", "key"), parts, strict=False))
        values |= {name: given[name] for name in ("context", "kubeconfig") if name in given}
        kubeconfig = Path(values.get("kubeconfig") or "/").expanduser()
        if not kubeconfig.is_absolute():
            raise ConfigurationError(
                f"flags: kubeconfig={values['kubeconfig']!r} is relative; processes in other folders may "
                f"have to undo a fault, so write {str(kubeconfig.absolute())!r}"
            )
        if "rollout" in given:
            values["rollout"] = "" if given["rollout"] == "none" else _deployment(given["rollout"])
        if given.get("restart"):
            values["restart"] = tuple(map(_deployment, given["restart"].split(",")))
        if "rollout_s" in given:
            values["rollout_s"] = _seconds(given["rollout_s"])
        return cls(**values)

    @property
    def text(self) -> str:
        """The text that parses to this address."""
        options = {
            "context": self.context,
            "kubeconfig": self.kubeconfig,
            "rollout": f"{_DEPLOYMENT}{self.rollout}" if self.rollout else "none",
            "restart": ",".join(f"{_DEPLOYMENT}{name}" for name in self.restart),
            "rollout_s": f"{self.rollout_s:g}",
        }
        query = urlencode({name: value for name, value in options.items() if value})
        return f"{self.namespace}/{self.name}/{self.key}?{query}"

    def role(self) -> str:
        """Return a Role with the permissions that this module needs, as YAML."""
        deployments = [name for name in (self.rollout, *self.restart) if name]
        rules = [("", "configmaps", [self.name], ["get", "patch"])]
        if deployments:
            rules.append(("apps", "deployments", deployments, ["get", "patch"]))
        rules.append(("coordination.k8s.io", "leases", [lease_name(self.name)], ["get", "update", "delete"]))
        # RBAC cannot allow creation by name.
        rules.append(("coordination.k8s.io", "leases", [], ["create"]))
        lines = [
            "apiVersion: rbac.authorization.k8s.io/v1",
            "kind: Role",
            f"metadata: {{name: otel-diag, namespace: {self.namespace}}}",
            "rules:",
        ]
        for group, kind, names, verbs in rules:
            named = f", resourceNames: [{', '.join(names)}]" if names else ""
            lines.append(
                f'  - {{apiGroups: ["{group}"], resources: [{kind}]{named}, verbs: [{", ".join(verbs)}]}}'
            )
        return "\n".join(lines)


def lease_name(config_map: str) -> str:
    """Return the name of the lease of a ConfigMap."""
    return f"otel-diag-{config_map}"


def _deployment(text: str) -> str:
    name = text.strip().removeprefix(_DEPLOYMENT)
    if not name or "/" in name:
        raise ConfigurationError(f"flags: {text!r} is not a deployment; write deployment/NAME")
    return name


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigurationError(f"flags: rollout_s={text!r} must be a number of seconds above 0")
    return value


@dataclass(frozen=True)
class _Found:
    version: str
    raw: bytes | None


class ConfigMapSurface:
    """The document in a ConfigMap of *cluster*; a rollout is polled every ``poll_s`` seconds.

    ``now`` returns UTC nanoseconds, for leases and annotations.
    """

    def __init__(
        self,
        address: Address,
        cluster: Cluster,
        *,
        now: Callable[[], int] = time.time_ns,
        poll_s: float = 1.0,
    ) -> None:
        self._address = address
        self._cluster = cluster
        self._now = now
        self._poll_s = poll_s
        self._place = Resource("configmaps", address.namespace, address.name)

    @property
    def name(self) -> str:
        """The name that errors and tables show."""
        return f"ConfigMap {self._address.namespace}/{self._address.name} ({self._address.key})"

    @property
    def identity(self) -> str:
        """The address of the cluster and the object in it."""
        address = self._address
        return f"configmap:{self._cluster.server}/{address.namespace}/{address.name}/{address.key}"

    @property
    def control(self) -> str:
        """The ``configmap:…`` text of the address."""
        return f"configmap:{self._address.text}"

    @property
    def write_timeout_s(self) -> float:
        """The longest that one write may take, in seconds: all rollouts and some requests."""
        return self._address.rollout_s * (1 + len(self._address.restart)) + 60.0

    async def read(self) -> bytes:
        """Return the document; raises FlagError."""
        return self._text(await self._get())

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the document and return once flagd runs with it.

        Raises LostUpdate when the ConfigMap is not as *expected*, and FlagError, also for a rollout that does
        not end in time: then the document was written.
        """
        found = await self._get()
        current = self._text(found)
        if current != expected:
            raise LostUpdate(
                f"{self.name} was changed by another client since it was read "
                f"({differing(expected, current)}); nothing was written. Stop the other writer (another run, "
                "helm upgrade, GitOps) and start again"
            )
        await self._replace(raw, found)

    async def overwrite(self, raw: bytes) -> None:
        """Replace whatever the key holds; the ConfigMap must exist. Raises FlagError."""
        await self._replace(raw, await self._get())

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether the bytes are equal."""
        return one == other

    def lease(self) -> RemoteLease | None:
        """Return the Lease object in the namespace of the ConfigMap."""
        place = Resource("leases", self._address.namespace, lease_name(self._address.name))
        return ClusterLease(self._cluster, place, now=self._now)

    def moved_from(self, identity: str) -> Moved | None:  # noqa: ARG002 - the port
        """Return None: an object of a cluster has no links to follow."""
        return None

    async def describe(self) -> str:
        """Return the name."""
        return self.name

    async def aclose(self) -> None:
        """Close connections."""
        await self._cluster.aclose()

    async def _get(self) -> _Found:
        body = await self._cluster.get(self._place)
        data: Mapping[str, str] = body.get("data") or {}
        text = data.get(self._address.key)
        if text is None and self._address.key not in (body.get("binaryData") or {}):
            raise FlagError(
                f"ConfigMap {self._address.namespace}/{self._address.name} has no key {self._address.key!r}"
                f"{nearest(self._address.key, data)}; it has {', '.join(data) or 'none'}. Name the key with "
                "configmap:NAMESPACE/NAME/KEY"
            )
        version = str((body.get("metadata") or {}).get("resourceVersion", ""))
        return _Found(version, None if text is None else text.encode())

    def _text(self, found: _Found) -> bytes:
        if found.raw is None:
            raise FlagError(f"{self.name} is binary data; flagd documents are text, so store it under 'data'")
        return found.raw

    async def _replace(self, raw: bytes, found: _Found) -> None:
        if raw != found.raw:
            change = {
                "metadata": {"resourceVersion": found.version},
                "data": {self._address.key: raw.decode()},
            }
            try:
                await self._cluster.patch(self._place, change)
            except Conflict as error:
                raise LostUpdate(f"{self.name}: {error}; nothing was written. Start again") from error
        if self._address.rollout:
            await self._roll_out(hashlib.sha256(raw).hexdigest(), changed=raw != found.raw)

    async def _roll_out(self, digest: str, *, changed: bool) -> None:
        flagd = Resource("deployments", self._address.namespace, self._address.rollout)
        annotations = _template(await self._cluster.get(flagd)).get("annotations") or {}
        started_with = annotations.get(_HASH, digest)  # without our annotation, assume the current document
        if changed or started_with != digest:
            await self._restart(flagd, digest)
        await self._rolled_out(flagd)
        for name in self._address.restart if changed else ():
            consumer = Resource("deployments", self._address.namespace, name)
            await self._restart(consumer, digest)
            await self._rolled_out(consumer)

    async def _restart(self, deployment: Resource, digest: str) -> None:
        # In microseconds, since a second restart within the same second would change nothing.
        annotations = {_RESTARTED: timestamp(self._now()), _HASH: digest}
        await self._cluster.patch(
            deployment, {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        )

    async def _rolled_out(self, deployment: Resource) -> None:
        deadline_s = time.monotonic() + self._address.rollout_s
        while True:
            body = await self._cluster.get(deployment)
            missing = _missing(body)
            if not missing:
                return
            stuck = _stuck(body)
            if stuck or time.monotonic() >= deadline_s:
                why = stuck or f"not within {self._address.rollout_s:g} s"
                raise FlagError(
                    f"{self.name} was written, but {deployment} is not rolled out: {why} ({missing}). flagd "
                    "still serves the previous document. See: kubectl rollout status "
                    f"{_DEPLOYMENT}{deployment.name} -n {deployment.namespace}"
                )
            await asyncio.sleep(self._poll_s)


def _template(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = deployment["spec"]["template"].get("metadata") or {}
    return found


def _missing(deployment: Mapping[str, Any]) -> str:
    """Return what a rollout still waits for, old pods included; empty once it is complete."""
    status: Mapping[str, Any] = deployment.get("status") or {}
    wanted = int(deployment["spec"].get("replicas", 1))
    generation = int(deployment["metadata"].get("generation", 0))
    if int(status.get("observedGeneration", 0)) < generation:
        return "the cluster has not noticed it yet"
    counts = {name: int(status.get(name, 0)) for name in ("updatedReplicas", "replicas", "availableReplicas")}
    if counts["updatedReplicas"] < wanted:
        return f"{counts['updatedReplicas']} of {wanted} pods are new"
    if counts["replicas"] > counts["updatedReplicas"]:
        return f"{counts['replicas'] - counts['updatedReplicas']} old pods still run"
    if counts["availableReplicas"] < wanted:
        return f"{counts['availableReplicas']} of {wanted} new pods are ready"
    return ""


def _stuck(deployment: Mapping[str, Any]) -> str:
    if deployment["spec"].get("paused"):
        return "it is paused; resume it with kubectl rollout resume"
    for condition in (deployment.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message") or "its progress deadline has passed")
    return ""


def open_surface(rest: str) -> ConfigMapSurface:
    """Return the surface of ``configmap:…``; raises ConfigurationError (address, package, kubeconfig)."""
    address = Address.parse(rest)
    return ConfigMapSurface(address, Cluster(address.context, address.kubeconfig, role=address.role()))
