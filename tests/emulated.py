"""Whether `machine.instructions: avx2` gives the bytes of a machine that has no more: `python -m tests.emulated`.

The same small work (teach a model, fine-tune an adapter, caption) is done on this machine and, by qemu's user emulation
(Debian's package qemu-user), on processors of both makers whose instructions end at AVX2; SHA-256 of what comes out is
compared. Takes some minutes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from captioning.instructions import settings

PROCESSORS = ("Haswell", "EPYC")  # Intel's and AMD's
EMULATOR = "qemu-x86_64"
ROOT = Path(__file__).parent.parent
LIMITS = ("avx2", "native")


def work(folder: Path) -> dict[str, str]:
    """SHA-256 by what it is of, in float32 and bfloat16."""
    from captioning.decoding import greedy_captions
    from captioning.finetune import CaptionRows, finetune
    from captioning.paligemma import load_frozen, load_processor
    from captioning.qlora import attach, lora_config, save
    from captioning.training import seed_everything
    from tests import conftest

    pictures = [conftest.png(colour) for colour in conftest.COLOURS]
    checkpoint = conftest.teach("gemma", pictures, folder / "checkpoint")
    found = {"checkpoint": hashed(checkpoint / "model.safetensors")}
    processor = load_processor(checkpoint)
    for compute in ("float32", "bfloat16"):
        seed_everything(1, 1)
        model = attach(load_frozen(checkpoint, compute, "cpu", True), lora_config(4, 8.0, 0.0, False, "table2"))
        train, held = (CaptionRows(pictures, conftest.CAPTIONS, conftest.PROMPT, "first", 1) for _ in range(2))
        finetune(model, processor, conftest.RECIPE, train, held, 1, "cpu", folder / "scratch")
        save(model, folder / compute, "")
        found[f"adapter, {compute}"] = hashed(folder / compute / "adapter_model.safetensors")
        said = greedy_captions(model, processor, pictures, conftest.PROMPT, 16, 4)
        found[f"captions, {compute}"] = hashlib.sha256(repr(list(said)).encode()).hexdigest()
    return found


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(instructions: str, processor: str | None) -> dict[str, str]:
    """`work` in a process of its own, on this machine or an emulated one."""
    limits = settings({"threads": 1, "instructions": instructions})
    paths = {"PYTHONPATH": os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)}
    emulator = [shutil.which(EMULATOR) or EMULATOR, "-cpu", processor] if processor else []
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator, os.path.realpath(sys.executable), "-m", "tests.emulated", folder]
        done = subprocess.run(command, env=os.environ | limits | paths, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if shutil.which(EMULATOR) is None:
        sys.exit(f"error: {EMULATOR} is not there; install Debian's package qemu-user")
    equal = True
    for instructions in LIMITS:
        here = run(instructions, None)
        for processor in PROCESSORS:
            there = run(instructions, processor)
            differs = [what for what, one in there.items() if one != here[what]]
            told = f"differ in {', '.join(differs)}" if differs else "the same bytes"
            print(f"{instructions}: this machine and an emulated {processor}: {told}", flush=True)
            equal = equal and not (differs and instructions == "avx2")
    sys.exit(not equal)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(work(Path(sys.argv[1]))))
    else:
        main()
