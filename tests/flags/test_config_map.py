"""Flags in a ConfigMap, against a stand-in of the API server over real HTTP and a real kubeconfig."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.flags.access import open_reader
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces.cluster import Cluster
from pytest_otel_diag.flags.surfaces.cluster_lease import ClusterLease
from pytest_otel_diag.flags.surfaces.config_map import Address, ConfigMapSurface, open_surface
from pytest_otel_diag.testing.flag_contract import (
    FlagControllerContract,
    FlagDocumentContract,
    SurfaceContract,
)
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd
from tests.support.kubernetes_stand_in import KubernetesStandIn
from tests.support.remote_flags import FLAG, document, switched

HASH, RESTARTED = "otel-diag/flags-sha256", "kubectl.kubernetes.io/restartedAt"


@pytest.fixture
def cluster() -> Iterator[KubernetesStandIn]:
    with KubernetesStandIn() as cluster:
        cluster.config_map(document().decode())
        cluster.deployment()
        yield cluster


def made(
    cluster: KubernetesStandIn, folder: Path, options: str = "", now: Callable[[], int] = time.time_ns
) -> ConfigMapSurface:
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig")
    address = Address.parse(f"otel-demo?kubeconfig={kubeconfig}{options}")
    reached = Cluster(address.context, address.kubeconfig, role=address.role(), timeout_s=2)
    return ConfigMapSurface(address, reached, now=now, poll_s=0.02)


@pytest.fixture
async def surface(cluster: KubernetesStandIn, tmp_path: Path) -> AsyncIterator[ConfigMapSurface]:
    surface = made(cluster, tmp_path)
    yield surface
    await surface.aclose()


@dataclass
class Pod:
    """A cluster, and a flagd whose pod copied the ConfigMap at the last rollout."""

    cluster: KubernetesStandIn
    flagd: Flagd


class TestContract(FlagControllerContract, FlagDocumentContract, SurfaceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def pod(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
        copied = tmp_path_factory.mktemp("pod") / "demo.flagd.json"
        copied.write_bytes(document())
        log = tmp_path_factory.mktemp("log") / "flagd.log"
        with KubernetesStandIn() as cluster, Flagd(copied, log) as flagd:

            def start(name: str) -> None:
                fresh = copied.with_suffix(".new")
                fresh.write_text(cluster.text())
                fresh.replace(copied)

            cluster.rolled_out = start
            cluster.rollout_s = 0.1
            cluster.config_map(document().decode())
            cluster.deployment()
            yield Pod(cluster, flagd)

    @pytest.fixture
    async def surface(self, pod: Pod, tmp_path: Path) -> AsyncIterator[ConfigMapSurface]:
        surface = made(pod.cluster, tmp_path)
        yield surface
        await surface.aclose()

    @pytest.fixture
    async def controller(self, pod: Pod, surface: ConfigMapSurface) -> AsyncIterator[SurfaceFlags]:
        reader = open_reader(f"ofrep:{pod.flagd.ofrep}")
        controller = SurfaceFlags(surface, reader, now=time.time_ns)
        before = await controller.document()
        yield controller
        await controller.restore(before)
        await controller.aclose()

    @pytest.fixture
    def rewrite(self, pod: Pod) -> Callable[[bytes], Awaitable[None]]:
        async def write(raw: bytes) -> None:
            pod.cluster.config_map(raw.decode())

        return write

    @pytest.fixture
    def flag(self) -> str:
        return FLAG


async def test_a_write_restarts_flagd_and_waits_until_it_is_rolled_out(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    cluster.rollout_s = deadline_s(0.3)
    rolled: list[str] = []
    cluster.rolled_out = rolled.append
    raw = await surface.read()
    await surface.write(switched(raw), expected=raw)
    assert rolled == ["flagd"]
    assert cluster.text().encode() == switched(raw)
    assert cluster.annotations()[HASH] == hashlib.sha256(switched(raw)).hexdigest()
    assert cluster.count("get deployments") >= 4  # its counts were looked at while it went on
    assert cluster.count("patch deployments") == 1


async def test_a_rollout_that_takes_too_long_says_that_the_document_is_written(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    cluster.rollout_s = 60
    surface = made(cluster, tmp_path, "&rollout_s=0.1")
    raw = await surface.read()
    with pytest.raises(FlagError, match=r"was written, but .*not rolled out: not within 0\.1 s.*noticed it"):
        await surface.write(switched(raw), expected=raw)
    assert cluster.text().encode() == switched(raw)
    await surface.aclose()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"observedGeneration": 9, "updatedReplicas": 1, "replicas": 2}, "1 of 2 pods are new"),
        ({"observedGeneration": 9, "updatedReplicas": 2, "replicas": 3}, "1 old pods still run"),
        ({"observedGeneration": 9, "updatedReplicas": 2, "replicas": 2}, "0 of 2 new pods are ready"),
        ({}, "has not noticed it"),
    ],
)
async def test_the_state_of_a_rollout_is_reported(
    cluster: KubernetesStandIn, tmp_path: Path, status: dict[str, Any], message: str
) -> None:
    cluster.rollout_s = 60
    cluster.deployment(replicas=2)
    cluster.objects["deployments", "flagd"]["status"] = status
    surface = made(cluster, tmp_path, "&rollout_s=0.05")
    raw = await surface.read()
    with pytest.raises(FlagError, match=message):
        await surface.write(switched(raw), expected=raw)
    await surface.aclose()


async def test_a_rollout_that_cannot_succeed_is_not_waited_for(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    cluster.rollout_s, cluster.stuck = 0.1, "ReplicaSet has timed out progressing"
    raw = await surface.read()
    with pytest.raises(FlagError, match="has timed out progressing"):
        await surface.write(switched(raw), expected=raw)
    cluster.stuck, cluster.rollout_s = "", 60
    cluster.deployment()
    cluster.objects["deployments", "flagd"]["spec"]["paused"] = True
    with pytest.raises(FlagError, match="paused; resume it with kubectl rollout resume"):
        await surface.write(raw, expected=switched(raw))


async def test_a_writer_in_between_is_a_lost_update(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    raw = await surface.read()
    theirs = switched(raw, "adFailure", "on").decode()
    cluster.before["patch configmaps"] = lambda: cluster.config_map(theirs)
    with pytest.raises(LostUpdate, match="changed by another client"):
        await surface.write(switched(raw), expected=raw)
    with pytest.raises(LostUpdate, match=r"changed by another client since it was read .*adFailure"):
        await surface.write(switched(raw), expected=raw)
    assert cluster.text() == theirs
    assert cluster.count("patch deployments") == 0


async def test_pods_that_missed_the_document_are_restarted_by_whoever_comes_next(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    """A process that was killed after the ConfigMap and before the rollout."""
    surface = made(cluster, tmp_path)
    raw = await surface.read()
    await surface.write(raw, expected=raw)  # never touched by us: nothing to take up
    assert cluster.count("patch deployments") == 0
    await surface.write(switched(raw), expected=raw)
    cluster.config_map(raw.decode())
    await surface.write(raw, expected=raw)
    assert cluster.count("patch deployments") == 2
    assert cluster.annotations()[HASH] == hashlib.sha256(raw).hexdigest()
    await surface.write(raw, expected=raw)
    assert cluster.count("patch deployments") == 2
    await surface.aclose()


async def test_two_writes_within_a_second_are_two_rollouts(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    raw = await surface.read()
    seen = []
    for old, new in ((raw, switched(raw)), (switched(raw), raw), (raw, switched(raw))):
        await surface.write(new, expected=old)
        seen.append(cluster.annotations()[RESTARTED])
    assert len(set(seen)) == 3


async def test_consumers_that_cache_are_restarted_after_flagd(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    for name in ("ad", "cart"):
        cluster.deployment(name)
    surface = made(cluster, tmp_path, "&restart=deployment/cart,ad")
    raw = await surface.read()
    await surface.write(switched(raw), expected=raw)
    patched = [request for request in cluster.requests if request.startswith("patch deployments")]
    assert [request.split()[-1] for request in patched] == ["flagd", "cart", "ad"]
    await surface.write(switched(raw), expected=switched(raw))
    assert cluster.count("patch deployments") == 3
    assert surface.write_timeout_s > 3 * 180
    await surface.aclose()


async def test_a_flagd_that_watches_the_mount_is_not_restarted(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    surface = made(cluster, tmp_path, "&rollout=none")
    raw = await surface.read()
    await surface.write(switched(raw), expected=raw)
    assert cluster.text().encode() == switched(raw)
    assert not [request for request in cluster.requests if "deployments" in request]
    await surface.aclose()


@pytest.mark.parametrize(
    "verb", ["get configmaps", "patch configmaps", "get deployments", "patch deployments"]
)
async def test_a_missing_permission_is_named_with_a_role_that_would_do(
    cluster: KubernetesStandIn, surface: ConfigMapSurface, verb: str
) -> None:
    raw = document()
    cluster.forbidden.add(verb)
    with pytest.raises(FlagError) as refused:
        await surface.write(switched(raw), expected=raw)
    message = str(refused.value)
    assert f"not allowed to {verb.replace('deployments', 'deployments.apps')} " in message
    assert "'otel-demo'" in message
    assert "kind: Role" in message
    assert 'apiGroups: ["apps"], resources: [deployments], resourceNames: [flagd]' in message
    cluster.forbidden.clear()
    await surface.write(switched(raw), expected=await surface.read())  # what was asked for is enough


async def test_unknown_callers_and_missing_objects_are_explained(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    surface = made(cluster, tmp_path)
    cluster.kubeconfig(tmp_path / "expired", token="no")
    stranger = open_surface(f"otel-demo?kubeconfig={tmp_path / 'expired'}")
    with pytest.raises(FlagError, match=r"refuses the credentials of the kubeconfig .401"):
        await stranger.read()
    await stranger.aclose()
    del cluster.objects["deployments", "flagd"]
    raw = await surface.read()
    with pytest.raises(FlagError, match="there is no deployments/flagd in namespace otel-demo"):
        await surface.write(switched(raw), expected=raw)
    del cluster.objects["configmaps", "flagd-config"]
    with pytest.raises(FlagError, match="kubectl get configmaps -n otel-demo"):
        await surface.read()
    await surface.aclose()


async def test_a_missing_key_and_binary_data_are_reported(cluster: KubernetesStandIn, tmp_path: Path) -> None:
    surface = made(cluster, tmp_path)
    cluster.config_map("{}", key="demo.flagd.jsn")
    with pytest.raises(FlagError, match=r"no key 'demo.flagd.json' \(did you mean 'demo.flagd.jsn'"):
        await surface.read()
    cluster.put("configmaps", "flagd-config", {"binaryData": {"demo.flagd.json": "e30="}})
    with pytest.raises(FlagError, match="is binary data"):
        await surface.read()
    await surface.overwrite(document())
    assert await surface.read() == document()
    await surface.aclose()


async def test_a_server_that_is_gone_is_reported(tmp_path: Path) -> None:
    with KubernetesStandIn() as cluster:
        surface = made(cluster, tmp_path)
    with pytest.raises(FlagError, match=r"API server .* does not answer .*kubectl version"):
        await surface.read()
    await surface.aclose()


async def test_a_cancelled_write_does_not_arrive_later(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    raw = await surface.read()
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        go_on.wait(deadline_s(10))

    cluster.before["patch configmaps"] = slowly
    task = asyncio.create_task(surface.write(switched(raw), expected=raw))
    assert await asyncio.to_thread(begun.wait, deadline_s(10))
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cluster.text().encode() == switched(raw)
    assert cluster.count("patch deployments") == 0
    await surface.write(raw, expected=switched(raw))
    assert cluster.text().encode() == raw


async def test_other_refusals_show_what_the_server_says(
    cluster: KubernetesStandIn, surface: ConfigMapSurface
) -> None:
    raw = await surface.read()
    cluster.objects["configmaps", "flagd-config"]["data"]["other"] = 1
    with pytest.raises(FlagError, match=r"answers 422 to patch .*must be a string"):
        await surface.write(switched(raw), expected=raw)


class TestLease:
    @pytest.fixture
    def time_ns(self) -> list[int]:
        return [1_700_000_000_000_000_000]

    @pytest.fixture
    async def lease(
        self, cluster: KubernetesStandIn, tmp_path: Path, time_ns: list[int]
    ) -> AsyncIterator[ClusterLease]:
        surface = made(cluster, tmp_path, now=lambda: time_ns[0])
        lease = surface.lease()
        assert isinstance(lease, ClusterLease)
        yield lease
        await surface.aclose()

    async def test_it_is_one_owners_until_it_is_over(
        self, cluster: KubernetesStandIn, lease: ClusterLease, time_ns: list[int]
    ) -> None:
        assert await lease.acquire("alice", seconds=10) is None
        time_ns[0] += 9_900_000_000
        assert await lease.acquire("bob", seconds=10) == "alice"
        assert await lease.acquire("alice", seconds=10.2) is None
        spec = cluster.objects["leases", "otel-diag-flagd-config"]["spec"]
        assert spec["leaseDurationSeconds"] == 11
        assert spec["acquireTime"] < spec["renewTime"]
        time_ns[0] += 11_100_000_000
        assert await lease.acquire("bob", seconds=10) is None
        spec = cluster.objects["leases", "otel-diag-flagd-config"]["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("bob", 1)
        await lease.release("alice")
        assert await lease.acquire("alice", seconds=10) == "bob"
        await lease.release("bob")
        await lease.release("bob")
        assert await lease.acquire("alice", seconds=10) is None

    async def test_of_two_who_come_at_once_one_gets_it(
        self, cluster: KubernetesStandIn, lease: ClusterLease
    ) -> None:
        def bob() -> None:
            cluster.put(
                "leases",
                "otel-diag-flagd-config",
                {
                    "spec": {
                        "holderIdentity": "bob",
                        "leaseDurationSeconds": 10,
                        "renewTime": "2033-11-14T22:13:20.000000Z",
                    }
                },
            )

        cluster.before["create leases"] = bob
        assert await lease.acquire("alice", seconds=10) == "bob"
        cluster.objects.pop(("leases", "otel-diag-flagd-config"))
        assert await lease.acquire("alice", seconds=10) is None
        cluster.before["update leases"] = bob
        assert await lease.acquire("alice", seconds=10) == "bob"
        await lease.release("alice")
        assert cluster.objects["leases", "otel-diag-flagd-config"]["spec"]["holderIdentity"] == "bob"

    async def test_a_run_that_is_always_faster_is_reported(
        self, cluster: KubernetesStandIn, lease: ClusterLease
    ) -> None:
        def again() -> None:
            held = {
                "holderIdentity": "bob",
                "leaseDurationSeconds": 1,
                "renewTime": "2001-01-01T00:00:00.000000Z",
            }
            cluster.put("leases", "otel-diag-flagd-config", {"spec": held})
            cluster.before["update leases"] = again

        again()
        assert await lease.acquire("alice", seconds=10) == "an unknown run that was faster"

    async def test_a_missing_permission_is_named(
        self, cluster: KubernetesStandIn, lease: ClusterLease
    ) -> None:
        cluster.forbidden.add("create leases")
        with pytest.raises(FlagError, match=r"not allowed to create leases\.coordination\.k8s\.io"):
            await lease.acquire("alice", seconds=10)


def test_addresses() -> None:
    assert Address.parse("shop") == Address("shop")
    full = Address.parse("shop/flags/f.json?context=kind&rollout=deployment/fd&restart=ad,cart&rollout_s=5")
    assert full == Address("shop", "flags", "f.json", "kind", "", "fd", ("ad", "cart"), 5.0)
    assert Address.parse("shop/flags?rollout=none").rollout == ""
    assert "deployments" not in Address.parse("shop/flags?rollout=none").role()
    assert "resourceNames: [fd, ad, cart]" in full.role()
    for address in (
        Address("shop"),
        full,
        Address("shop", rollout=""),
        Address("shop", kubeconfig="/a&b/c d"),
    ):
        assert Address.parse(address.text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/b/c/d", "configmap:NAMESPACE/NAME"),
        ("?context=a", "configmap:NAMESPACE/NAME"),
        ("a?contxt=b", "did you mean 'context'"),
        ("a?rollout=daemonset/flagd", "write deployment/NAME"),
        ("a?rollout_s=soon", "above 0"),
        ("a?rollout_s=-1", "above 0"),
        ("a?kubeconfig=here/config", "is relative"),
        ("a?kubeconfig=/nowhere/config", "cluster cannot be reached"),
    ],
)
def test_addresses_that_name_nothing(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_surface(text)


def test_an_unknown_context_is_refused_with_the_nearest_spelling(
    cluster: KubernetesStandIn, tmp_path: Path
) -> None:
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(ConfigurationError, match=r"did you mean 'kind'.*known contexts: kind"):
        open_surface(f"otel-demo?kubeconfig={kubeconfig}&context=kindd")
    known = open_surface(f"otel-demo?kubeconfig={kubeconfig}&context=kind")
    assert known.identity == f"configmap:{cluster.url}/otel-demo/flagd-config/demo.flagd.json"
    assert "flagd-config" in known.name


def measured() -> dict[str, str]:
    """Return the environment that adds a child process to the coverage of this run."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def test_in_a_pod_its_own_cluster_is_used(tmp_path: Path) -> None:
    """A service account's files, as Kubernetes mounts them, in a process with the environment of a pod."""
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    script = f"""
import kubernetes.config.incluster_config as pod
pod.SERVICE_TOKEN_FILENAME = {str(tmp_path / "token")!r}
pod.SERVICE_CERT_FILENAME = {str(tmp_path / "ca.crt")!r}
from pytest_otel_diag.flags.surfaces.config_map import open_surface
print(open_surface("otel-demo").identity)
"""
    environment = {
        "KUBECONFIG": str(tmp_path / "none"),
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "PYTHONPATH": ":".join(sys.path),
        **measured(),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == "configmap:https://10.0.0.1:443/otel-demo/flagd-config/demo.flagd.json", (
        done
    )


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["kubernetes"] = None
from pytest_otel_diag.flags.surfaces.config_map import open_surface
from pytest_otel_diag.errors import ConfigurationError
try:
    open_surface("otel-demo")
except ConfigurationError as error:
    print(error)
"""
    environment = {"PYTHONPATH": ":".join(sys.path), **measured()}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 'pip install "pytest-otel-diag[kubernetes]"' in done.stdout, done
