"""Given full sizes, the same classes are the published models: counted on the meta device, without memory."""

from __future__ import annotations

import torch
from torch import nn

from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig, MaskDecoder
from deocc_engines.networks.sam import Sam, SamConfig, _modeling
from deocc_engines.networks.text import ClipTextConfig, ClipTextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_unet_is_sd2_inpainting_widened_to_13_channels() -> None:
    with torch.device("meta"):
        unet = Unet(UnetConfig())
        assert unet.network.conv_in.weight.shape == (320, 13, 3, 3)
        # SD2's 4-channel UNet has 865,910,724 parameters; nine more input channels of 3 x 3 x 320.
        assert parameters(unet) == 865_910_724 + 9 * 320 * 9
        out = unet(torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 9, 64, 64), torch.empty(1, 77, 1024))
    assert out.shape == (1, 4, 64, 64)


def test_autoencoder_is_sd2s_and_the_mask_decoder_its_copy_with_one_channel() -> None:
    with torch.device("meta"):
        vae, decoder = Autoencoder(AutoencoderConfig()), MaskDecoder(AutoencoderConfig())
        assert parameters(vae) == 83_653_863
        assert decoder.decoder.conv_out.weight.shape == (1, 128, 3, 3)
        rest = parameters(vae.network.decoder) - parameters(vae.network.decoder.conv_out)
        assert parameters(decoder.decoder) == rest + 128 * 9 + 1
        latent = vae.encode(torch.empty(1, 3, 512, 512))
        assert latent.shape == (1, 4, 64, 64)
        assert vae.decode(latent).shape == (1, 3, 512, 512)
        assert decoder(latent).shape == (1, 1, 512, 512)


def test_text_encoder_is_sd2s() -> None:
    with torch.device("meta"):
        text = ClipTextEncoder(ClipTextConfig())
        assert parameters(text) == 340_387_840
        assert text(torch.zeros(1, 77, dtype=torch.int64)).shape == (1, 77, 1024)


def test_sam_is_vit_b() -> None:
    with torch.device("meta"):
        sam = Sam(SamConfig())
    assert parameters(sam) == 93_735_472


def test_sam_decodes_as_segment_anything_does() -> None:
    torch.manual_seed(0)
    sam = Sam(SamConfig(64, 16, 16, 1, 2, (0,), 2, 32, 2, 16)).eval()
    embedding = torch.randn(1, 32, 4, 4)
    points, labels = torch.tensor([[[10.0, 20.0], [40.0, 8.0]]]), torch.tensor([[1.0, 0.0]])
    low = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        for given in (None, low):
            sparse, dense = sam.prompt_encoder((points, labels), None, given)
            expected = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
            ours = sam.decode(
                embedding,
                torch.cat([points, torch.zeros(1, 1, 2)], dim=1),
                torch.cat([labels, torch.tensor([[-1.0]])], dim=1),
                low,
                torch.tensor([0.0 if given is None else 1.0]),
            )
            for a, b in zip(ours, expected, strict=True):
                torch.testing.assert_close(a, b)
    assert _modeling() is _modeling()
