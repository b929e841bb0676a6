"""The rehearsal's settings, measurements and report; and a complete rehearsal with a miniature."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rehearsal, rehearsal_report
from benchmarks.copies import ROOT, set_values
from benchmarks.rehearsal import SIDE, SPLITS, check_disk, draw_images, rehearse, settings, stage_begins
from benchmarks.rehearsal_report import MAPPED, closing, memory_table
from benchmarks.watch import CommandPart, watch
from captioning.data.readers.folder.forms import read_folder
from captioning.limits.memory import Need
from captioning.params.load import load_params
from captioning.params.recipes import starting_checkpoints
from captioning.runtime.stage import stage_main

GB = 10**9


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("shape", list(SIDE))
def test_settings_are_the_papers_profile_with_smaller_numbers(tmp_path: Path, shape: str, device: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    set_values(path, settings(shape, tmp_path, device))
    params, paper = load_params(path), load_params(ROOT / "params.yaml")
    assert params.profile == "paper" and params.active.machine.device == device
    assert params.active.machine.dequantise == paper.profiles["paper"].machine.dequantise
    assert starting_checkpoints(params) == {"base"}, "only one checkpoint fits on the disk"
    assert {params.variants[row].targets or params.lora.targets for row in params.rows} == {"table2", "all-linear"}


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: {b: 1}  # comment\n")
    set_values(path, {"a.b": 2})
    assert path.read_text() == "a: {b: 2}  # comment\n"
    with pytest.raises(KeyError, match="has no a"):
        set_values(path, {"a.c": 2})


def test_images_have_rows(tmp_path: Path) -> None:
    captions = draw_images(tmp_path, 48)
    total = sum(SPLITS.values())
    images = list(read_folder(tmp_path))
    assert len(images) == total and len(captions) == 5 * total
    assert {split: sum(image.split == split for image in images) for split in SPLITS} == SPLITS


def test_a_full_disk_is_reported_first(tmp_path: Path) -> None:
    check_disk(tmp_path, 1)
    with pytest.raises(SystemExit, match="too little disk"):
        check_disk(tmp_path, 1e18)


def test_a_command_is_split_into_parts(tmp_path: Path) -> None:
    """The second part's memory does not count for the first."""
    code = (
        "import time\nprint(\"Running stage 'one':\")\ntime.sleep(1.2)\n"
        "print(\"Running stage 'two@a-1':\")\nheld = b'1' * 300_000_000\ntime.sleep(1.2)\nprint('done')\n"
        "raise SystemExit(3)"
    )
    status, parts = watch([sys.executable, "-u", "-c", code], tmp_path, {}, stage_begins)
    assert status == 3
    assert [part.name for part in parts] == ["before", "one", "two@a-1"]
    assert parts[2].lines == ("Running stage 'two@a-1':", "done")
    assert parts[2].private - parts[1].private > 250_000_000
    assert parts[2].resident >= parts[2].private > 300_000_000
    assert all(1 < part.seconds < 20 for part in parts[1:])


def test_a_stages_last_line_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    stage_main(lambda: None)()
    line = capsys.readouterr().err.strip()
    values = closing(CommandPart("any", 0.0, lines=("noise", re.sub(r"^[\w.]+:", "generate:", line))))
    assert 0.01 < values["memory"] < 100
    on_gpu = "generate: 1.0 s, 2.50 GB, 7.25 GB of the GPU"
    assert closing(CommandPart("any", 0.0, lines=(on_gpu,))) == {"memory": 2.5, "gpu": 7.25}
    assert closing(CommandPart("any", 0.0, lines=("nothing",))) == {}


def test_a_row_tells_what_was_counted_beside_what_was_predicted() -> None:
    """On a CPU the weights that stay in their file are counted; on a GPU torch counts."""
    need = Need("k", 2, "rows", {MAPPED: 2 * GB}, lambda n: n * GB, "cpu")
    parts = [
        CommandPart("check", 0.0, seconds=1.2, resident=GB // 10),
        CommandPart(
            "qlora-train@a-1",
            0.0,
            seconds=90.0,
            resident=9 * GB,
            private=3 * GB,
            lines=("qlora_train: 90.0 s, 9.50 GB",),
        ),
        CommandPart(
            "scst@a-1", 0.0, seconds=9.0, resident=GB, private=GB, lines=("scst: 9.0 s, 1.50 GB, 4.25 GB of the GPU",)
        ),
    ]
    text = memory_table(parts, {"check": None, "qlora-train@a-1": need, "scst@a-1": need})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert rows == [
        ["check", "1", "0.10", "", "", ""],
        ["qlora-train@a-1", "90", "9.50", "5.00", "5.20", "1.20"],
        ["scst@a-1", "9", "1.50", "4.25", "5.20", "1.20"],
    ]


def test_a_complete_rehearsal_with_a_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`dvc repro` of the paper's profile completes in a copy, without network and GPU."""
    monkeypatch.setattr(rehearsal_report, "TABLE_II", {})
    status, text = rehearse(tmp_path, "miniature", "cpu")
    assert status == 0, text
    trained = ["qlora-train@base-r16-1", "qlora-train@full-adapter-1", "scst@base-r16-greedy-1"]
    captioned = ["zero-shot@base", "generate-scst@base-r16-greedy-1"]
    for stage in (*trained, *captioned, "evaluate", "report", "viewer"):
        assert f"| {stage} |" in text
    assert re.search(r"scst-base-r16-greedy-1: 2 steps: prefill \d+ s, decode", text)
    assert "base-r8: 88,064 trainable" in text and "Table II" not in text
    assert (tmp_path / "project/plots/report.html").exists()


def test_an_adapter_whose_size_is_not_table_iis_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = dict(rehearsal_report.TABLE_II)
    monkeypatch.setattr(rehearsal_report, "adapter_sizes", lambda copy: sizes)
    monkeypatch.setattr(rehearsal_report, "scst_parts", lambda copy: "")
    assert rehearsal_report.report(tmp_path, [CommandPart("check", 0.0)], [], "cpu", against_paper=True)[0] == 0
    sizes["base-r8"] = (1, 0.1)
    status, text = rehearsal_report.report(tmp_path, [CommandPart("check", 0.0)], [], "cpu", against_paper=True)
    assert status == 1 and "not Table II's: base-r8" in text


def test_on_a_gpu_speeds_are_measured_and_the_folder_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(rehearsal.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *arguments: calls.append(arguments) or (0, "table"))
    monkeypatch.setattr(rehearsal, "measure_throughput", lambda *arguments: calls.append(arguments) or 0)
    folder = tmp_path / "scratch"
    assert rehearsal.main(["--folder", str(folder)]) == 0
    assert calls == [(folder, "3b", "cuda"), (folder / "checkpoint", "cuda")]
    assert not folder.exists()
