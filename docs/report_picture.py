"""Takes the picture of the report page for the README: runs one session and captures its part of the page.

``make report-picture`` calls this. It needs Chromium on the PATH (Debian: ``apt-get install chromium``).
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "report.png"
MAX_BYTES = 300_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1040,1380"),
    *("--run-all-compositor-stages-before-draw", "--virtual-time-budget=5000"),  # wait until all is painted
)
TEST = """
import pytest

@pytest.mark.otel_flag("paymentFailure", variant="50%")
def test_payment_failures_are_found(diagnosis):
    diagnosis.assert_root_cause("payment")
"""


def main() -> None:
    """Run the session, open its section of the report page and take the picture."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(
            f"report-picture: found none of {', '.join(BROWSERS)}; install one, e.g. apt-get install chromium"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_payment.py").write_text(TEST, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "pytest", "-q", "."], cwd=folder, check=True)
        (report,) = folder.glob("reports/*/report.html")
        page = folder / "page.html"
        page.write_text(opened(report.read_text(encoding="utf-8")), encoding="utf-8")
        command = [browser, *OPTIONS, f"--screenshot={PICTURE}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    size = PICTURE.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"report-picture: {PICTURE} has {size:,} bytes; the limit is {MAX_BYTES:,}")
    print(f"wrote {PICTURE} ({size // 1000} kB)")


def opened(page: str) -> str:
    """Return the page without its scores and with its first session unfolded."""
    head, _, sessions = re.split(r"(?=<h1>)|(?=<h2>sessions)", page, maxsplit=2)
    return head + sessions.replace("<details>", "<details open>", 1)


if __name__ == "__main__":
    main()
