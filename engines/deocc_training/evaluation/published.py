"""Figures that others published. They were not measured here and may rest on other definitions."""

from __future__ import annotations

__all__ = ["NOTE", "PUBLISHED"]

NOTE = (
    "Published, not measured here: the paper “SynergyAmodal: Deocclude Anything with Text Control”. Best of 8 samples "
    "against the ground truth; whether regions are pooled, and the crops, background and network of the FID, are "
    "not stated there. COCOA: 12,753 annotations, BSDS-A: 4,175, unoccluded ones and stuff included."
)

# (mIoU in %, FID) on COCOA and on BSDS-A
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "DeoccAnything": {"COCOA": (90.3, 9.5), "BSDS-A": (90.2, 34.3)},
    "DeoccAnything without G2L": {"COCOA": (90.1, 10.9), "BSDS-A": (90.1, 37.4)},
    "partial completion only": {"COCOA": (89.9, 10.5), "BSDS-A": (88.2, 36.1)},
    "SDAmodal": {"COCOA": (87.3, 11.0), "BSDS-A": (89.7, 37.1)},
    "pix2gestalt": {"COCOA": (85.8, 13.6), "BSDS-A": (88.3, 39.8)},
    "SSSD": {"COCOA": (81.3, 12.8), "BSDS-A": (34.1, 92.9)},
    "SD2 inpainting + InternVL + ZIM": {"COCOA": (58.5, 15.1), "BSDS-A": (63.8, 46.4)},
}
