"""Refuse a wrong params.yaml, and a profile that cannot start on this machine, before any other stage works."""

from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.checkpoints.fetch import explain_unavailable
from captioning.data.sources import explain_missing
from captioning.params.load import load_params
from captioning.params.packages import GROUPS, pinned_lines
from captioning.params.recipes import required_checkpoints
from captioning.params.sections import CHECKPOINTS, HubCheckpoints, Params
from captioning.runtime.inputs import REQUIREMENTS
from captioning.runtime.paths import fetched_folder
from captioning.runtime.stage import stage_main
from captioning.runtime.tracking import missing_package


@stage_main
def main() -> None:
    params = load_params()
    data, checkpoints = params.data, required_checkpoints(params)
    faults = [explain_missing(data)]
    faults += explain_missing_weights(params), explain_missing_device(params), missing_package(params.tracking)
    if any(faults):
        raise UserError(f"profile {params.profile} cannot start here: " + "; ".join(filter(None, faults)))
    write_text(Path("data/checked.txt"), f"{params.profile}\n")
    for name in CHECKPOINTS:
        write_text(Path(f"data/wanted/{name}.txt"), "yes\n" if name in checkpoints else "no\n")
    for group, names in GROUPS.items():
        write_text(Path(f"data/packages/{group}.txt"), pinned_lines(REQUIREMENTS, names))


def explain_missing_weights(params: Params) -> str | None:
    """Return why the first unavailable checkpoint cannot be fetched and how to get it, or None."""
    if not isinstance(checkpoints := params.active.checkpoints, HubCheckpoints):
        return None
    for name in sorted(required_checkpoints(params)):
        hub = getattr(checkpoints, name.replace("-", "_"))
        if fault := explain_unavailable(checkpoints.origin, hub.repository, hub.revision, fetched_folder(name)):
            return fault
    return None


def explain_missing_device(params: Params) -> str | None:
    """Return a line if torch does not find the profile's device. Imports torch only to ask for a GPU."""
    device = params.active.machine.device
    if device == "cpu":
        return None
    import torch

    is_available = torch.cuda.is_available() if device.startswith("cuda") else torch.backends.mps.is_available()
    return None if is_available else f"no GPU: torch finds no {device}; set profiles.{params.profile}.machine.device"


if __name__ == "__main__":
    main()
