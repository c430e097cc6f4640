"""From noise to latent: a pure function over a denoiser and a schedule. The mathematics is diffusers'.

It is written as a generator that yields what it wants denoised, so that whoever drives it may denoise others' rows in
the same call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor

from deocc_engines.errors import InvalidBundle
from deocc_engines.guidance import Guidance, Rows

__all__ = ["Schedule", "noise_for", "planned_steps", "sample"]

SCHEDULERS = {
    "DDIMScheduler": DDIMScheduler,
    "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler,
    "UniPCMultistepScheduler": UniPCMultistepScheduler,
}


@dataclass(frozen=True)
class Schedule:
    """A scheduler of diffusers by name, with its configuration."""

    name: str = "DDIMScheduler"
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in SCHEDULERS:
            raise InvalidBundle(f"the schedule {self.name!r} is not one of {', '.join(SCHEDULERS)}")

    def fresh(self, steps: int) -> Any:
        """A scheduler of its own for one run: diffusers' schedulers carry state from step to step."""
        scheduler = SCHEDULERS[self.name](**self.config)
        scheduler.set_timesteps(steps)
        return scheduler


def noise_for(seed: int, stage: str, shape: tuple[int, ...]) -> Float[Tensor, "1 c z z"]:
    """Standard normal noise that depends on nothing but the sample's seed and the stage."""
    digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)


def planned_steps(steps: int, strength: float) -> int:
    """Steps that are left when a run starts from noise of this strength."""
    return min(steps, max(1, round(steps * strength)))


def sample(
    schedule: Schedule,
    steps: int,
    noise: Float[Tensor, "m c z z"],
    condition: Float[Tensor, "1 k z z"],
    text: Float[Tensor, "1 n d"],
    *,
    guidance: Guidance,
    no_text: Float[Tensor, "1 n d"],
    start: Float[Tensor, "1 c z z"] | None = None,
    strength: float = 1.0,
    on_step: Callable[[int, int, Tensor], None],
) -> Generator[Rows, Tensor, Tensor]:
    """Denoises a latent for each noise: yields rows, is sent the denoiser's predictions, returns z_0 [m, c, z, z].

    Args:
        start: a latent to start from; noised with `strength` of the schedule (SDEdit). None: pure noise.
        no_text: the empty prompt.
        on_step: called with the steps done, the steps planned and the current estimate of z_0.
    """
    scheduler = schedule.fresh(steps)
    condition, text = condition.expand(len(noise), -1, -1, -1), text.expand(len(noise), -1, -1)
    planned = steps if start is None else planned_steps(steps, strength)
    first = len(scheduler.timesteps) - planned
    timesteps = scheduler.timesteps[first:]
    z_t: Tensor = (
        noise * scheduler.init_noise_sigma if start is None else scheduler.add_noise(start, noise, timesteps[:1])
    )
    if hasattr(scheduler, "set_begin_index"):  # multistep solvers count from where they start
        scheduler.set_begin_index(first)
    for done, t in enumerate(timesteps):
        model_input = scheduler.scale_model_input(z_t, t)
        rows = Rows(model_input, t.float().expand(len(z_t)), condition, text)
        prediction = guidance.combined((yield guidance.rows(rows, no_text)))
        stepped = scheduler.step(prediction, t, z_t)
        estimate = getattr(stepped, "pred_original_sample", None)
        z_t = stepped.prev_sample
        on_step(done + 1, planned, z_t if estimate is None else estimate)
    return z_t
