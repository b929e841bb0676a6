"""The page as a reader uses it: drop a picture, read each row's caption. Nothing is kept or leaves the machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from rasterio.io import MemoryFile

from captioning.base.errors import UserError
from captioning.commands.caption import main as caption
from tests.helpers.browser import open_chromium, read_console, read_requests, set_screen

ROOT = Path(__file__).parents[2]
pytest.importorskip("gradio", reason="no Gradio; make .venv/serve")
MEGABYTES = 1
STUB = "Method not implemented."  # Gradio's script writes it while it uploads
SECONDS = 120


@dataclass
class Served:
    """A server, its page's address, and the folder in which it keeps temporary files."""

    process: subprocess.Popen
    address: str
    scratch: Path

    def files(self) -> list[Path]:
        return [path for path in self.scratch.rglob("*") if path.is_file()]


@pytest.fixture
def served(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    scratch = tmp_path_factory.mktemp("scratch")
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1", "GRADIO_SHARE": "True"}
    command = [sys.executable, "-m", "captioning.serve", "--model", "mix", "--model", "zero-shot-mix", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--upload-limit", str(MEGABYTES)],
        cwd=project,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=(scratch.with_name(f"{scratch.name}.log")).open("w"),
        text=True,
    )
    try:
        yield Served(process, process.stdout.readline().strip(), scratch)  # type: ignore[union-attr]
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return result


def drop(driver: Any, path: Path) -> str:
    """Upload a file and return the text of the new result."""
    field = wait_for(lambda: driver.find_elements("css selector", "#upload input[type=file]"))[0]
    read = "return document.querySelector('#result .served')?.innerHTML ?? ''"
    before = driver.execute_script(read)
    field.send_keys(str(path))
    wait_for(lambda: driver.execute_script(read) not in ("", before))
    return driver.find_element("css selector", "#result .served").text


def shown_captions(driver: Any) -> list[str]:
    return [item.get_attribute("aria-label") for item in driver.find_elements("css selector", "#result ol")]


def test_a_picture_is_captioned_by_each_row_and_not_kept(
    served: Served, project: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.address.startswith("http://127.0.0.1:")
    values = np.random.default_rng(0).integers(0, 4000, (3, 24, 24), dtype=np.uint16)
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=24, height=24, count=3, dtype="uint16") as dataset:
            dataset.write(values)
        (project / "deep.tif").write_bytes(memory.read())
    (project / "blue.png").write_bytes(pictures[1])
    (project / "note.jpg").write_text("<b>no picture</b>")
    (project / "large.png").write_bytes(pictures[0] + bytes(MEGABYTES * 2**20))

    with open_chromium() as driver:
        driver.get(served.address)
        stand_in = "A small stand-in for PaliGemma-3B writes them (profile miniature)."
        wait_for(lambda: stand_in in driver.find_element("tag name", "body").text)
        for name in ("blue.png", "deep.tif"):
            text = drop(driver, project / name)
            expected = []
            for row in ("mix", "zero-shot-mix"):
                assert caption([name, "--model", row]) == 0
                expected.append(capsys.readouterr().out.rstrip("\n").split("\t")[1])
            assert shown_captions(driver) == expected and expected[0] != expected[1]
            assert "mix-1 whole caption" in text and "zero-shot-mix whole caption" in text
            numbers = [item.text for item in driver.find_elements("css selector", "#result li small")]
            assert len(numbers) == sum(len(line.split()) for line in expected)
            assert all(0 <= float(number) <= 100 for number in numbers)
            assert served.files() == [], "an upload was kept"
        assert "stretched to 8 bits" in text.splitlines()[0], "the reader's notes are shown"
        for width in (390, 820, 1400):
            set_screen(driver, width, 900)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width

        text = drop(driver, project / "note.jpg")
        assert text.startswith("This file cannot be captioned: no JPEG, PNG, TIFF")
        assert served.files() == []
        driver.find_element("css selector", "#upload input[type=file]").send_keys(str(project / "large.png"))
        wait_for(lambda: "maximum" in driver.find_element("tag name", "body").text)
        assert served.files() == []
        result, refused = (driver.find_element("id", name) for name in ("result", "refused"))
        assert not result.is_displayed(), "the result of another file remains"
        assert refused.is_displayed() and refused.text == f"This file is larger than {MEGABYTES} MB. Choose another."
        assert drop(driver, project / "blue.png") and result.is_displayed() and not refused.is_displayed()

        assert [request for request in read_requests(driver) if not request.startswith(served.address)] == []
        assert [line for line in read_console(driver) if STUB not in line] == []
    log = served.scratch.with_name(f"{served.scratch.name}.log").read_text()
    assert "Traceback" not in log and "share" not in log


def test_a_mistake_is_a_sentence_on_the_page(pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    from captioning.serve.page import Describer

    def overflow(*_: Any) -> None:
        raise UserError("mix: a product is not finite; set machine.compute: float32")

    monkeypatch.setattr(Describer, "caption", overflow)
    shown = Describer([], 9, None)(pictures[0])
    assert "mix: a product is not finite; set machine.compute: float32." in shown and 'role="alert"' in shown


def test_uploads_are_limited_without_a_browser_too_and_end_with_the_server(served: Served) -> None:
    def post(size: int, host: str = "") -> int:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            + bytes(size)
            + b"\r\n--x--"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"} | ({"Host": host} if host else {})
        try:
            with urlopen(Request(f"{served.address}/gradio_api/upload", body, headers), timeout=SECONDS) as answer:
                return answer.status
        except HTTPError as error:
            return error.code

    assert post(MEGABYTES * 2**20 + 1) == 413
    assert served.files() == []
    assert post(10, host="elsewhere.example") == 400, "another site's name for this machine"
    assert post(10) == 200
    assert len(served.files()) == 1, "an upload that nobody has asked to caption"
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(timeout=SECONDS) == 130
    assert list(served.scratch.glob("tmp*")) == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(served.address.rsplit(":", 1)[1])), timeout=1)
