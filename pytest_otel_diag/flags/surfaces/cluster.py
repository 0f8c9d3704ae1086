"""Requests to a Kubernetes API server; the only module that imports the kubernetes package.

That package finds the server, the certificates and the credentials (programs that fetch a token included).
The requests use its connection pool directly: a few routes, bounded in time, without hidden retries. They run
in worker threads, so they do not block the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError, FlagError, nearest
from pytest_otel_diag.extras import require

MERGE = "application/merge-patch+json"
_VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}
_GROUPS = {"configmaps": "", "deployments": "apps", "leases": "coordination.k8s.io"}


@dataclass(frozen=True)
class Resource:
    """One object of the cluster; with an empty name, all objects of the kind in the namespace."""

    kind: str
    namespace: str
    name: str = ""

    @property
    def path(self) -> str:
        """Its path on the API server."""
        group = _GROUPS[self.kind]
        start = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{start}/namespaces/{self.namespace}/{self.kind}" + (f"/{self.name}" if self.name else "")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name} in namespace {self.namespace}"


class NotFound(FlagError):
    """The object does not exist."""


class Conflict(FlagError):
    """The object was changed since it was read, or exists already."""


class Cluster:
    """The API server that a kubeconfig names; without one, that of the pod this process runs in.

    *role* is a sufficient Role as YAML, shown when a permission is missing. Raises ConfigurationError when
    the package, the file or the context is missing.
    """

    def __init__(
        self, context: str = "", kubeconfig: str = "", *, role: str = "", timeout_s: float = 10.0
    ) -> None:
        self._role = role
        self._timeout_s = timeout_s
        self._context = context
        self._configuration = _configuration(context, kubeconfig)
        rest = _require("kubernetes.client.rest")
        self._pool: Any = rest.RESTClientObject(self._configuration).pool_manager
        self._refused: type[Exception] = _require("urllib3.exceptions").HTTPError

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self._configuration.host).rstrip("/")

    async def get(self, resource: Resource) -> dict[str, Any]:
        """Return the object; raises NotFound, FlagError."""
        return await self._call("GET", resource)

    async def patch(self, resource: Resource, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge *change* into the object and return it; raises Conflict, NotFound, FlagError."""
        return await self._call("PATCH", resource, change)

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object; raises Conflict when it exists, FlagError."""
        return await self._call("POST", resource, body)

    async def replace(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object as a whole; raises Conflict, NotFound, FlagError."""
        return await self._call("PUT", resource, body)

    async def delete(self, resource: Resource, version: str) -> None:
        """Delete the object in that version; raises Conflict, NotFound, FlagError."""
        await self._call("DELETE", resource, {"preconditions": {"resourceVersion": version}})

    async def aclose(self) -> None:
        """Close connections."""
        self._pool.clear()

    async def _call(
        self, method: str, resource: Resource, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        call = partial(self._request, method, resource, body)
        asked = asyncio.ensure_future(in_daemon(call, "otel-diag cluster"))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The request should end first, or it could take effect after later ones.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({asked}, timeout=2 * self._timeout_s)
            if asked.done() and not asked.cancelled():
                asked.exception()  # retrieved, so that asyncio does not log it: the cancellation goes on
            raise

    def _request(self, method: str, resource: Resource, body: Mapping[str, Any] | None) -> dict[str, Any]:
        path = Resource(resource.kind, resource.namespace).path if method == "POST" else resource.path
        try:
            answer = self._pool.request(
                method,
                self.server + path,
                body=None if body is None else json.dumps(body).encode(),
                headers={
                    "Accept": "application/json",
                    "Content-Type": MERGE if method == "PATCH" else "application/json",
                    **self._signed(),
                },
                timeout=self._timeout_s,
                retries=False,
                redirect=False,
            )
        except self._refused as error:
            raise FlagError(
                f"the Kubernetes API server {self.server} does not answer ({error}); check that "
                f"{self._kubectl()} version answers and that the context is the right one"
            ) from error
        found = _object(answer.data)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._failure(answer.status, found, _VERBS[method], resource)
        return found

    def _signed(self) -> dict[str, str]:
        settings: Mapping[str, Mapping[str, Any]] = self._configuration.auth_settings()
        return {
            str(item["key"]): str(item["value"])
            for item in settings.values()
            if item["in"] == "header" and item["value"]
        }

    def _kubectl(self) -> str:
        return f"kubectl --context {self._context}" if self._context else "kubectl"

    def _failure(self, status: int, found: Mapping[str, Any], verb: str, resource: Resource) -> FlagError:
        message = str(found.get("message") or "no message")
        if status == HTTPStatus.NOT_FOUND:
            return NotFound(
                f"there is no {resource} at {self.server} ({message}); list them with: "
                f"{self._kubectl()} get {resource.kind} -n {resource.namespace}"
            )
        if status == HTTPStatus.CONFLICT:
            return Conflict(f"{resource} was changed by another client ({message})")
        if status == HTTPStatus.UNAUTHORIZED:
            return FlagError(
                f"the Kubernetes API server {self.server} refuses the credentials of the kubeconfig (401, "
                f"{message}): they are missing or have expired. Log in again, then try {self._kubectl()} "
                "auth whoami"
            )
        if status == HTTPStatus.FORBIDDEN:
            group = _GROUPS[resource.kind]
            return FlagError(
                f"not allowed to {verb} {resource.kind}{f'.{group}' if group else ''} {resource.name!r} in "
                f"namespace {resource.namespace!r} (403, {message}); create this Role and bind it to the "
                f"user who runs the tests:\n{self._role}"
            )
        return FlagError(f"the Kubernetes API server answers {status} to {verb} {resource}: {message}")


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {"message": data[:200].decode("utf-8", errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)[:200]}


def _require(module: str) -> Any:
    return require(module, "kubernetes", "flags in a ConfigMap")


def _configuration(context: str, kubeconfig: str) -> Any:
    config, client = _require("kubernetes.config"), _require("kubernetes.client.configuration")
    made = client.Configuration()
    path = str(Path(kubeconfig).expanduser()) if kubeconfig else None
    try:
        config.load_kube_config(path, context or None, made, persist_config=False)
    except (config.ConfigException, OSError, ValueError, TypeError) as error:
        if not kubeconfig and not context and _in_pod(config, made):
            return made
        raise ConfigurationError(
            f"the Kubernetes cluster cannot be reached: {error}{_contexts(config, path, context)}; name a "
            "kubeconfig with the environment variable KUBECONFIG or ?kubeconfig=PATH, and one of its "
            "contexts with ?context=NAME (kubectl config get-contexts lists them)"
        ) from error
    return made


def _in_pod(config: Any, made: Any) -> bool:
    try:
        config.load_incluster_config(made)
    except config.ConfigException:
        return False
    return True


def _contexts(config: Any, path: str | None, wanted: str) -> str:
    """Return the known contexts, when *wanted* is not one of them."""
    try:
        names = [str(item["name"]) for item in config.list_kube_config_contexts(path)[0]]
    except (config.ConfigException, OSError, ValueError, TypeError):
        return ""
    if not wanted or wanted in names:
        return ""
    return f"{nearest(wanted, names)}; known contexts: {', '.join(names) or 'none'}"
