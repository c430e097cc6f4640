"""How far from the reference an engine may be.

A manifest may say ``"parity": {"relative_l2": {"denoise": 0.08}, "image": {"mask_iou": 0.97}, "steps": 4}``; what it
leaves out is as here. The defaults are about twice what honest engines show: OpenVINO in bfloat16 gives 2.8e-2 on the
full-size denoiser, float16 under 1e-3, anything that overflows or loses its normalisation tenths and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deocc_engines.compile.listing import Verdict
from deocc_engines.errors import InvalidBundle

__all__ = ["Thresholds"]

EXACT = 5e-3  # relative L2 of calls that are computed in float32; their weights may be float16
NARROW = 6e-2  # of the others
IMAGE = {"mask_iou": 0.97, "psnr_visible": 30.0, "psnr_invisible": 25.0}  # dB
WORST = 1e9
STEPS = 4  # of each stage, for the final image


@dataclass(frozen=True)
class Thresholds:
    """Of one bundle.

    Attributes:
        relative_l2: by call; |served − reference| / |reference|.
        image: intersection over union of the amodal masks, and PSNR where the object is seen and where it is not.
        steps: of the comparison of the final image.
    """

    relative_l2: dict[str, float]
    image: dict[str, float]
    steps: int

    @classmethod
    def of(cls, manifest: dict[str, Any], exact: dict[str, bool]) -> Thresholds:
        """A manifest's, over the defaults.

        Args:
            exact: whether each call is.

        Raises:
            InvalidBundle: the manifest names what there is not, or says no numbers.
        """
        said = manifest.get("parity", {})
        try:
            calls, image = dict(said.get("relative_l2", {})), dict(said.get("image", {}))
            unknown = {*calls} - {*exact} | {*image} - {*IMAGE} | {*said} - {"relative_l2", "image", "steps"}
            if unknown:
                raise InvalidBundle(f"the manifest's parity names {', '.join(sorted(unknown))}, which there is not")
            return cls(
                {name: float(calls.get(name, EXACT if own else NARROW)) for name, own in exact.items()},
                {name: float(image.get(name, default)) for name, default in IMAGE.items()},
                int(said.get("steps", STEPS)),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidBundle("the manifest's parity holds what are no numbers") from error

    def call(self, name: str, value: float) -> Verdict:
        value = value if value <= WORST else WORST  # NaN and infinity have no JSON
        return Verdict("relative_l2", value, self.relative_l2[name], value <= self.relative_l2[name])

    def final(self, measure: str, value: float) -> Verdict:
        return Verdict(measure, value, self.image[measure], value >= self.image[measure])
