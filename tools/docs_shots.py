"""The pictures of MLflow's interface and of the report in docs/images, from a made-up study: `make docs-shots`.

    python tools/docs_shots.py [--run FOLDER]

Takes some minutes, most of them for the short trainings behind the report's pictures; --run uses an existing study.
Without Chromium it does nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import Browser, find_chromium
from PIL import Image

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
LARGEST = 300_000
QUIET = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');" \
        "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"  # fmt: skip


@contextmanager
def served(run: Path) -> Iterator[str]:
    """MLflow's interface on the database of a run folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{run / 'mlflow.db'}"]  # fmt: skip
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=run
    )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def shoot(browser: Browser, name: str) -> None:
    """Save a picture of the window in docs/images."""
    buffer = Path(tempfile.mkdtemp()) / "shot.png"
    browser.shoot(buffer)
    picture = Image.open(io.BytesIO(buffer.read_bytes())).convert("RGB")
    picture.save(IMAGES / name, optimize=True)
    if (IMAGES / name).stat().st_size > LARGEST:  # photographs: a palette takes a third of the space
        picture.quantize(255).save(IMAGES / name, optimize=True)
    size = (IMAGES / name).stat().st_size
    print(f"{IMAGES / name}: {size} bytes")
    assert size < LARGEST, f"{name} is larger than {LARGEST} bytes"


def interface(run: Path) -> None:
    """Pictures of the nested runs of the study, and of the frontier's page among its artifacts."""
    noted = json.loads((run / "tracking.json").read_text())
    experiment, parent = noted["experiment"], noted["runs"][""]
    with served(run) as address, Browser(1400, 820) as browser:
        browser.open(address)
        browser.run(QUIET)
        browser.run(
            "[...document.querySelectorAll('button, label')].find(b => b.innerText == 'Model training')?.click()"
        )
        browser.open(f"{address}/#/experiments/{experiment}/runs?viewStateShareKey=kdsearch")
        browser.call("Page.reload")
        browser.wait("document.querySelector('[data-testid=\"expander\"], .ag-row button')")
        time.sleep(3)
        browser.run("(document.querySelector('.ag-row [aria-label*=xpand], .ag-row button')).click()")
        browser.wait("document.querySelectorAll('.ag-center-cols-container .ag-row').length > 5")
        time.sleep(2)
        shoot(browser, "mlflow.png")
        browser.open(f"{address}/#/experiments/{experiment}/runs/{parent}/artifacts/frontier.html")
        browser.wait("document.querySelector('iframe')")
        time.sleep(4)
        shoot(browser, "frontier-page.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder of an existing study")
    options = parser.parse_args()
    if find_chromium() is None:
        print("Chromium is not installed: the pictures in docs/images are unchanged.")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = options.run
        if run is None:
            from made_up_study import make

            run = make(Path(folder) / "clfd-made-up", 30, None, True).path
        interface(run.resolve())
        with Browser(1000, 1560) as browser:
            browser.open((run.resolve() / "report.html").as_uri())
            shoot(browser, "report.png")
            browser.resize(1000, 640)
            browser.run("document.querySelector('.samples').scrollIntoView()")
            shoot(browser, "report-pictures.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
