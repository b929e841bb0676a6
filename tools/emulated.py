"""Whether `machine.instructions: avx2` gives the bytes of a machine that has no more: `python -m tools.emulated`.

The same small work (pre-train a model, fine-tune an adapter, refine it with SCST, caption, and operations one by one)
is done on this machine and, by qemu's user emulation (Debian's package qemu-user), on processors of both makers whose
instructions end at AVX2; SHA-256 of what comes out is compared. qemu emulates no AVX-512: whether that changes anything
shows on a machine that has it. Takes some minutes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.compute.instructions import environment_variables

PROCESSORS = ("Haswell", "Cascadelake-Server", "EPYC")  # two of Intel's and one of AMD's
EMULATOR = "qemu-x86_64"
ROOT = Path(__file__).parents[1]
LIMITS = ("avx2", "native")
STEPS = 3  # of SCST
DIFFERENT = {"sqrt, float32"}  # MKL's begins with an estimate that each processor makes its own way; no training has it
UNARY = (
    "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "sin", "cos", "tanh", "sigmoid",
    "erf", "sum", "mean", "norm", "var", "cumsum", "softmax", "log_softmax", "logsumexp",
)  # fmt: skip
FUNCTIONAL = (
    "gelu",
    "silu",
    "softplus",
    "layer_norm",
    "scaled_dot_product_attention",
    "linear",
    "conv2d",
    "cross_entropy",
)


def work(folder: Path) -> dict[str, str]:
    """SHA-256 by what it is of: of a training of every kind, and of operations in float32 and bfloat16."""
    from captioning.adapters.lora import attach, freeze_encoder, lora_config, save
    from captioning.compute.seeds import seed_everything
    from captioning.decoding import greedy_captions
    from captioning.paligemma.model import load_frozen, load_processor
    from captioning.supervised.finetune import CaptionRows, finetune
    from tests import conftest

    pictures = [conftest.png(colour) for colour in conftest.COLOURS]
    hashes, checkpoint = pretrained(folder / "checkpoint"), folder / "checkpoint"
    processor = load_processor(checkpoint)
    seed_everything(1, 1)
    model = attach(load_frozen(checkpoint, "float32", "cpu", True), lora_config(4, 8.0, 0.0, False, "table2"))
    train, held = (CaptionRows(pictures, conftest.CAPTIONS, conftest.PROMPT, "first", 1) for _ in range(2))
    finetune(model, processor, conftest.RECIPE, train, held, 1, "cpu", folder / "scratch")
    save(model, folder / "tuned", "")
    hashes["adapter"] = hashed(folder / "tuned/adapter_model.safetensors")
    freeze_encoder(model)
    hashes["step records of SCST"] = refined(model, processor, pictures, folder / "scst")
    save(model, folder / "refined", "")
    hashes["adapter of SCST"] = hashed(folder / "refined/adapter_model.safetensors")
    captions = greedy_captions(model, processor, pictures, conftest.PROMPT, 16, 4)
    hashes["captions"] = hashlib.sha256(repr(list(captions)).encode()).hexdigest()
    for compute in ("float32", "bfloat16"):
        hashes |= {f"{name}, {compute}": _of(result) for name, result in operations(compute)}
    return hashes


def pretrained(folder: Path) -> dict[str, str]:
    """A checkpoint that knows the tests' captions, and then was made as the miniature makes its own."""
    from captioning.checkpoints.miniature import load_checkpoint
    from captioning.checkpoints.pretraining import draw_pictures, pixel_values, train_decoder, train_tower
    from captioning.compute.seeds import seed_everything
    from tests import conftest

    pictures = [conftest.png(colour) for colour in conftest.COLOURS]
    model, processor = load_checkpoint(conftest.teach("gemma", pictures, folder))
    scenes, drawn = draw_pictures(48, conftest.SIZE, "emulated")
    pixels = pixel_values(processor, drawn)
    seed_everything(1, 1)
    train_tower(model, pixels, scenes, 1, 1e-4, 1, folder / "scratch")
    train_decoder(model, processor, pixels, scenes, ["alpha"], "base", 1, 1e-4, 1, folder / "scratch")
    model.save_pretrained(folder, safe_serialization=True)
    return {"checkpoint": hashed(folder / "model.safetensors")}


def refined(model: Any, processor: Any, pictures: list[bytes], scratch: Path) -> str:
    """SHA-256 of SCST's step records; `model` is refined in place."""
    from captioning.scst.features import EncodedImages
    from captioning.scst.refine import refine, scst_arguments
    from tests import conftest
    from tests.helpers.sampled_captions import encoded
    from tests.helpers.scst_toy import IDS, RECIPE, scorers, second_captions

    images = EncodedImages(IDS, encoded(model.get_base_model(), processor, pictures))
    references = second_captions([list(captions) for captions in conftest.CAPTIONS])
    recipe = RECIPE | {"epochs": STEPS}
    arguments = scst_arguments(recipe, 1, "cpu", 4, scratch)
    done = refine(model, processor, recipe, images, images, *scorers(references), arguments)
    return hashlib.sha256(repr(done.records).encode()).hexdigest()


def operations(compute: str) -> Iterator[tuple[str, Any]]:
    """Results of what a training is made of, each alone."""
    import torch
    from torch.nn import functional

    torch.manual_seed(3)
    kind = getattr(torch, compute)
    x, w = torch.randn(64, 64).to(kind), torch.randn(64, 64).to(kind)
    rest: dict[str, tuple[Any, ...]] = {
        "layer_norm": ((64,),),
        "linear": (w,),
        "cross_entropy": (torch.arange(64),),
        "conv2d": (w.reshape(4, 1, 32, 32), None, 8),
    }
    for name in UNARY:
        last = (-1,) if name in ("cumsum", "softmax", "log_softmax", "logsumexp", "var", "mean") else ()
        yield name, getattr(x.abs() + 0.1, name)(*last)
    for name in FUNCTIONAL:
        taken = x[None, None] if name in ("conv2d", "scaled_dot_product_attention") else x
        others = (taken, taken) if name.startswith("scaled") else rest.get(name, ())
        yield name, getattr(functional, name)(taken, *others)
    for name, result in ("product", x @ w), ("by a vector", x @ w[0]), ("dot", x[0] @ w[0]), ("division", x / w):
        yield name, result
    yield "drawn", torch.cat([torch.randn(999), torch.rand(999), functional.dropout(torch.ones(999), 0.1)])


def _of(tensor: Any) -> str:
    import torch

    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(instructions: str, processor: str | None) -> dict[str, str]:
    """`work` in a process of its own, on this machine or an emulated one."""
    limits = environment_variables({"threads": 1, "instructions": instructions})
    paths = {"PYTHONPATH": os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)}
    emulator = [shutil.which(EMULATOR) or EMULATOR, "-cpu", processor] if processor else []
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator, os.path.realpath(sys.executable), "-m", "tools.emulated", folder]
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
            differs = [what for what, one in there.items() if one != here[what] and what not in DIFFERENT]
            told = f"differ in {', '.join(differs)}" if differs else f"the same bytes ({len(there)} results)"
            print(f"{instructions}: this machine and an emulated {processor}: {told}", flush=True)
            equal = equal and not (differs and instructions == "avx2")
    sys.exit(not equal)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(work(Path(sys.argv[1]))))
    else:
        main()
