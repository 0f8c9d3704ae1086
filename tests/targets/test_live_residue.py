"""What stays after a fault, and the command that restarts a service."""

import sys
from pathlib import Path

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.targets.live.residue import Residue, RestartCommand

CART = Fault(flag="cartFailure", variant="100%")


def writing(folder: Path) -> str:
    """A command that notes the service it was called for."""
    script = folder / "restart.py"
    script.write_text(f"import sys; open({str(folder / 'log')!r}, 'a').write(sys.argv[1] + '\\n')")
    return f"{sys.executable} {script} svc-{{service}};rm"


async def test_a_service_is_restarted_once_and_without_a_shell(tmp_path: Path) -> None:
    residue = Residue("3.0", RestartCommand(writing(tmp_path)))
    assert await residue([CART, Fault(flag="cartFailure", variant="10%")]) == ()
    assert (tmp_path / "log").read_text() == "svc-cart;rm\n"


async def test_the_release_names_the_service(tmp_path: Path) -> None:
    assert await Residue("1.12", RestartCommand(writing(tmp_path)))([CART]) == ()
    assert (tmp_path / "log").read_text() == "svc-cartservice;rm\n"


async def test_without_a_command_residual_effects_are_reported() -> None:
    message = await Residue("3.0", None)([CART, Fault(flag="paymentFailure"), Fault(flag="mine")])
    assert len(message) == 1
    assert "cartFailure=100%" in message[0]
    assert "--otel-diag-restart" in message[0]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            f"{sys.executable} -c \"import sys; print('no such {{service}}'); sys.exit(3)\"",
            "failed with exit code 3: no such cart",
        ),
        ("/does/not/exist {service}", "cannot be started"),
        (f"{sys.executable} -c 'import sys; sys.exit(4)' {{service}}", "failed with exit code 4"),
    ],
)
async def test_a_failed_restart_is_reported_with_its_reason(template: str, reason: str) -> None:
    (message,) = await Residue("3.0", RestartCommand(template))([CART])
    assert "was not restarted" in message
    assert reason in message


async def test_a_restart_that_hangs_is_given_up() -> None:
    command = RestartCommand(f"{sys.executable} -c 'import time; time.sleep(60)' {{service}}", timeout_s=0.3)
    assert "took longer than 0.3 s" in await command.run("cart")


@pytest.mark.parametrize(
    ("template", "reason"), [("docker restart cart", "{service}"), ("sh 'x {service}", "quote")]
)
def test_commands_that_cannot_be_are_refused(template: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        RestartCommand(template)
