"""deocc: the client of the deocclusion service.

::

    with deocc.Client() as client:
        completion = client.complete("photo.jpg", points=[(120, 80)])
        completion.save("whole.png")
"""

from importlib.metadata import version

from deocc.client import AsyncClient, Client
from deocc.engines import Engine, Limits, Preset
from deocc.errors import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    DeadlineUnmeetable,
    DeoccError,
    InvalidBundle,
    InvalidImage,
    InvalidInput,
    InvalidOption,
    InvalidPrompt,
    NotFound,
    NotInstalled,
    Overloaded,
    RateLimited,
    ServerError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from deocc.events import Event, Preview, Progress, Stage
from deocc.results import Box, Completion, ModalMask, Sample, Segmentation, UploadedImage

__version__ = version("deocc")

__all__ = [
    "AsyncClient",
    "Box",
    "Cancelled",
    "Client",
    "Completion",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "DeoccError",
    "Engine",
    "Event",
    "InvalidBundle",
    "InvalidImage",
    "InvalidInput",
    "InvalidOption",
    "InvalidPrompt",
    "Limits",
    "ModalMask",
    "NotFound",
    "NotInstalled",
    "Overloaded",
    "Preset",
    "Preview",
    "Progress",
    "RateLimited",
    "Sample",
    "Segmentation",
    "ServerError",
    "Stage",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMedia",
    "UploadedImage",
    "__version__",
]
