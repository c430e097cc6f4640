"""One small request through everything, so that the first caller does not pay for what is lazy."""

from __future__ import annotations

import numpy as np

from deocc.v1 import deocclusion_pb2 as pb
from deocc_engines.image import encode_png
from deocc_service.core import Core

__all__ = ["warm_up"]


async def warm_up(core: Core) -> None:
    """Raises whatever a caller would have met."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[16:48, 16:48] = (200, 40, 40)
    request = pb.CompleteRequest()
    request.image.content = encode_png(pixels)
    request.prompt.points.add(x=32, y=32)
    request.options.steps = 1
    await core.complete(request)
