"""Refuse a wrong params.yaml, and a profile that cannot start on this machine, before any stage works."""

from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.checkpoints.fetch import explain_unavailable
from captioning.compute.packages import GROUPS, pinned_lines
from captioning.data.sources import explain_missing
from captioning.params.load import CHECKPOINTS, HubCheckpoints, Params, load_params
from captioning.params.recipes import starting_checkpoints
from captioning.runtime.inputs import REQUIREMENTS
from captioning.runtime.stage import stage_main
from captioning.runtime.tracking import missing_package

OUT, WANTED, PACKAGES = Path("data/checked.txt"), Path("data/wanted"), Path("data/packages")


@stage_main
def main() -> None:
    params = load_params()
    missing = (
        explain_missing_data(params),
        explain_missing_weights(params),
        explain_missing_device(params),
        missing_package(params.tracking),
    )
    faults = [fault for fault in missing if fault]
    if faults:
        raise UserError(f"profile {params.profile} cannot start here: " + "; ".join(faults))
    write_text(OUT, f"{params.profile}\n")
    for name in CHECKPOINTS:
        write_text(WANTED / f"{name}.txt", "yes\n" if name in required_checkpoints(params) else "no\n")
    for group, names in GROUPS.items():
        write_text(PACKAGES / f"{group}.txt", pinned_lines(REQUIREMENTS, names))


def required_checkpoints(params: Params) -> set[str]:
    """The checkpoints to make: those some row starts from, and in the miniature what these are made from."""
    made_here = not isinstance(params.active.checkpoints, HubCheckpoints)
    starts = starting_checkpoints(params)
    return starts | ({"base"} if made_here and starts - {"paligemma2"} else set())


def explain_missing_data(params: Params) -> str | None:
    """None where the source is at hand; else what is missing and how to get it."""
    data = params.data
    return explain_missing(data.source, Path(data.path), data.repository, data.revision)


def explain_missing_weights(params: Params) -> str | None:
    """None where every checkpoint can be made or fetched; else the first that cannot, and how to get it."""
    checkpoints = params.active.checkpoints
    if not isinstance(checkpoints, HubCheckpoints):
        return None
    repositories = (getattr(checkpoints, name.replace("-", "_")) for name in sorted(required_checkpoints(params)))
    faults = (explain_unavailable(checkpoints.origin, one.repository, one.revision) for one in repositories)
    return next((fault for fault in faults if fault), None)


def explain_missing_device(params: Params) -> str | None:
    """None where the profile's device is there; torch is imported only to ask for a GPU."""
    device = params.active.machine.device
    if device == "cpu":
        return None
    import torch

    found = torch.cuda.is_available() if device.startswith("cuda") else torch.backends.mps.is_available()
    return None if found else f"no GPU: torch finds no {device}; set profiles.{params.profile}.machine.device"


if __name__ == "__main__":
    main()
