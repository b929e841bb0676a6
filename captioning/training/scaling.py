"""Loss scaling, for chips without bfloat16 units: float16 has no numbers between 0 and 6e-8, and none above 65,504.

Gradients of activations are smaller than that, so torch's GradScaler multiplies the loss by a power of two, and divides
the gradients of the adapters, which are float32. A larger scale keeps more small gradients, but may let large ones
overflow. Such a step is skipped: its gradients are dropped, the scale is halved, and the learning rate goes on as
planned. After 2,000 steps without an overflow the scale is doubled. All this depends on values alone, so two runs skip
the same steps. An overflow in the forward pass is no matter of scale and ends the training (paligemma/model.py).
"""

import sys
from typing import Any

import torch

from captioning.base.errors import UserError

INITIAL_SCALE = 2.0**16  # torch's own; some ten steps would find another one
REMEDY = "set the profile's machine.compute: bfloat16, or float32, whose range is larger"


class LossScaling:
    """A GradScaler, and the number of steps that were skipped."""

    def __init__(self, device: torch.device) -> None:
        self.scaler, self.skipped = torch.amp.GradScaler(device.type, init_scale=INITIAL_SCALE), 0

    def unscale_or_skip(self, optimizer: Any, step: int) -> None:
        """Divide the gradients that `optimizer` takes by the scale, or drop them if one is not finite; then its step
        changes nothing. Raises `UserError` if gradients overflow without a scale, too."""
        scale = self.scaler.get_scale()
        self.scaler.unscale_(optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            return
        if scale <= 1:
            raise UserError(f"the gradients of step {step} overflow in float16, whatever the loss scale; {REMEDY}")
        self.skipped += 1
        optimizer.zero_grad(set_to_none=True)

    @property
    def summary(self) -> dict[str, Any]:
        return {"skipped_steps": self.skipped, "loss_scale": self.scaler.get_scale()}

    def report(self, steps: int) -> None:
        """Print how many of `steps` were skipped."""
        reason = f"; their gradients overflowed in float16, so the loss scale is now {self.scaler.get_scale():g}"
        print(f"{self.skipped} of {steps} steps skipped{reason if self.skipped else ''}", file=sys.stderr)

    def state(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
