"""A stand-in for a Kubernetes API server over real HTTP: ConfigMaps, Deployments and Leases of one namespace.

Like the real server, it checks tokens, permissions, versions of objects, the content type of patches and
microseconds in the times of leases. It rolls out a changed pod template over ``rollout_s`` seconds, with
intermediate counts, and then calls ``rolled_out`` with the deployment's name, when the new pod has copied the
ConfigMap.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>apps|coordination\.k8s\.io)/v1)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<kind>configmaps|deployments|leases)(?:/(?P<name>[^/]+))?$"
)
_GROUPS = {"configmaps": None, "deployments": "apps", "leases": "coordination.k8s.io"}
_VERBS = {"GET": "get", "PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}
_MICRO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")
TOKEN = "let-me-in"


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubernetesStandIn:
    """The server, and what it holds. ``forbidden`` has ``verb kind`` texts that are answered with 403."""

    def __init__(self, namespace: str = "otel-demo") -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.forbidden: set[str] = set()
        self.requests: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}  # called once before a request of this "verb kind"
        self.rollout_s = 0.0
        self.stuck = ""
        self.rolled_out: Callable[[str], None] = lambda name: None
        self._lock = threading.RLock()
        self._version = 100
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> KubernetesStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, path: Path, token: str = TOKEN) -> Path:
        """Write a kubeconfig with the context ``kind`` as its current one."""
        path.write_text(
            f"""apiVersion: v1
kind: Config
current-context: kind
clusters:
  - {{name: here, cluster: {{server: "{self.url}"}}}}
users:
  - {{name: tester, user: {{token: {token}}}}}
contexts:
  - {{name: kind, context: {{cluster: here, user: tester, namespace: {self.namespace}}}}}
"""
        )
        return path

    def config_map(self, text: str, name: str = "flagd-config", key: str = "demo.flagd.json") -> None:
        self.put("configmaps", name, {"data": {key: text}})

    def deployment(self, name: str = "flagd", replicas: int = 1) -> None:
        spec = {"replicas": replicas, "template": {"metadata": {"labels": {"app": name}}, "spec": {}}}
        status = {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": replicas,
        }
        self.put("deployments", name, {"spec": spec, "status": status}, generation=1)

    def put(self, kind: str, name: str, body: dict[str, Any], **metadata: Any) -> None:
        with self._lock:
            held = {**body, "metadata": {"name": name, "namespace": self.namespace, **metadata}}
            self.objects[kind, name] = self._stamped(held)

    def text(self, name: str = "flagd-config", key: str = "demo.flagd.json") -> str:
        with self._lock:
            return str(self.objects["configmaps", name]["data"][key])

    def annotations(self, name: str = "flagd") -> dict[str, str]:
        with self._lock:
            held = self.objects["deployments", name]["spec"]["template"]["metadata"]
            return dict(held.get("annotations") or {})

    def count(self, request: str) -> int:
        return sum(made.startswith(request) for made in self.requests)

    def answer(self, method: str, path: str, headers: Any, sent: bytes) -> dict[str, Any]:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized")
        found = _PATH.match(path)
        if found is None or _GROUPS[found["kind"]] != found["group"]:
            raise Refusal(404, "the server could not find the requested resource")
        kind, name, verb = found["kind"], found["name"], _VERBS[method]
        self.requests.append(f"{verb} {kind} {name or ''}".strip())
        if f"{verb} {kind}" in self.forbidden or found["namespace"] != self.namespace:
            raise Refusal(403, f'{kind} "{name}" is forbidden: User "tester" cannot {verb} resource "{kind}"')
        before = self.before.pop(f"{verb} {kind}", None)
        if before is not None:
            before()
        body = json.loads(sent) if sent else {}
        with self._lock:
            if verb == "create":
                return self._create(kind, body)
            if (kind, name) not in self.objects:
                raise Refusal(404, f'{kind} "{name}" not found')
            if verb == "get":
                return self._seen(kind, name)
            if verb == "delete":
                self._check(kind, name, (body.get("preconditions") or {}).get("resourceVersion"))
                return self.objects.pop((kind, name))
            return self._change(kind, name, verb, headers, body)

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if (kind, name) in self.objects:
            raise Refusal(409, f'{kind} "{name}" already exists')
        _valid(kind, body)
        self.objects[kind, name] = self._stamped(body)
        return body

    def _change(self, kind: str, name: str, verb: str, headers: Any, body: dict[str, Any]) -> dict[str, Any]:
        if verb == "patch" and headers.get("content-type") != "application/merge-patch+json":
            raise Refusal(415, "the body of the request was in an unknown format")
        self._check(kind, name, (body.get("metadata") or {}).get("resourceVersion"))
        held = self.objects[kind, name]
        after = _merged(held, body) if verb == "patch" else copy.deepcopy(body)
        _valid(kind, after)
        if kind == "deployments" and after["spec"]["template"] != held["spec"]["template"]:
            after["metadata"]["generation"] = held["metadata"]["generation"] + 1
            after["started"] = time.monotonic()
        if after != held:
            self._stamped(after)
        self.objects[kind, name] = after
        return after

    def _check(self, kind: str, name: str, version: str | None) -> None:
        if version is not None and version != self.objects[kind, name]["metadata"]["resourceVersion"]:
            raise Refusal(
                409, f'Operation cannot be fulfilled on {kind} "{name}": the object has been modified'
            )

    def _stamped(self, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        return body

    def _seen(self, kind: str, name: str) -> dict[str, Any]:
        held = self.objects[kind, name]
        if kind == "deployments" and "started" in held:
            self._roll(name, held)
        return held

    def _roll(self, name: str, held: dict[str, Any]) -> None:
        passed = (time.monotonic() - held["started"]) / self.rollout_s if self.rollout_s else 1.0
        wanted, status = held["spec"]["replicas"], held["status"]
        if self.stuck:
            status["conditions"] = [
                {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": self.stuck}
            ]
        if passed < 0.25:
            return
        status["observedGeneration"] = held["metadata"]["generation"]
        if passed < 0.5:
            status.update(updatedReplicas=0, replicas=wanted, availableReplicas=wanted)
        elif passed < 0.75:
            status.update(updatedReplicas=wanted, replicas=wanted + 1, availableReplicas=wanted)
        elif passed < 1:
            status.update(updatedReplicas=wanted, replicas=wanted, availableReplicas=0)
        elif not self.stuck:
            status.update(updatedReplicas=wanted, replicas=wanted, availableReplicas=wanted)
            del held["started"]
            self.rolled_out(name)


def _merged(held: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result = copy.deepcopy(held) if isinstance(held, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _valid(kind: str, body: dict[str, Any]) -> None:
    if kind == "configmaps" and not all(isinstance(text, str) for text in (body.get("data") or {}).values()):
        raise Refusal(422, "ConfigMap is invalid: data: Invalid value: must be a string")
    if kind == "leases":
        spec = body["spec"]
        if not spec.get("holderIdentity") or not isinstance(spec.get("leaseDurationSeconds"), int):
            raise Refusal(422, "Lease is invalid: spec: Required value")
        for field in ("acquireTime", "renewTime"):
            if not _MICRO.match(spec[field]):
                raise Refusal(400, f"Lease in version v1 cannot be handled: {field}: cannot parse")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, held: KubernetesStandIn) -> None:
        self.held = held
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    server: _Server

    def _serve(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, body = 200, self.server.held.answer(self.command, self.path, self.headers, sent)
        except Refusal as refusal:
            status, body = refusal.status, {"kind": "Status", "status": "Failure", "message": str(refusal)}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        pass
