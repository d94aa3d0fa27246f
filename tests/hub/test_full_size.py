"""The full-size networks as their repositories describe them, on the meta device: shapes and sizes, no weights."""

import pytest
import torch

from emitdiff.devices import choose_placement, component_sizes
from emitdiff.segmentation.model.features import DiffusionFeatures, decoder_blocks
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.published.adm import ADM_256, adm_scheduler
from emitdiff.synthesis.finetuning.base import FULL_SIZE

GIGABYTE = 10**9


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5 with a ControlNet in half precision; a U-Net's defaults but for its width of text."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        parts = {
            "unet": unet,
            "controlnet": ControlNetModel(cross_attention_dim=768),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
            ),
        }
    return {name: part.half() for name, part in parts.items()}


class Pipe:
    def __init__(self, components):
        self.components = components


def test_stable_diffusion_has_the_parameters_that_its_repository_has(sd15):
    counted = {name: sum(value.numel() for value in part.parameters()) for name, part in sd15.items()}
    assert counted == {
        "unet": 859_520_964, "controlnet": 361_279_120, "vae": 83_653_863, "text_encoder": 123_060_480
    }  # fmt: skip
    assert counted["unet"] >= FULL_SIZE


@pytest.mark.parametrize(("free", "placement"), [(8, "whole"), (4, "one model at a time"), (3, "one layer at a time")])
def test_stable_diffusion_in_half_precision_is_placed_by_the_memory_of_the_card(sd15, free, placement):
    sizes = component_sizes(Pipe(sd15))
    assert sum(sizes.values()) == pytest.approx(2.86 * GIGABYTE, rel=0.01)
    assert choose_placement(sizes, free * GIGABYTE) == placement


def test_unet_and_controlnet_fit_each_other(sd15):
    latents = torch.empty(2, 4, 64, 64, dtype=torch.float16, device="meta")
    tokens = torch.empty(2, 77, 768, dtype=torch.float16, device="meta")
    edges = torch.empty(2, 3, 512, 512, dtype=torch.float16, device="meta")
    step = torch.zeros(2, dtype=torch.long, device="meta")
    down, middle = sd15["controlnet"](latents, step, tokens, controlnet_cond=edges, return_dict=False)
    predicted = sd15["unet"](
        latents, step, tokens, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    assert len(down) == 12 and middle.shape == (2, 1280, 8, 8) and predicted.shape == latents.shape


def test_the_papers_backbone_gives_the_features_that_the_head_takes():
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**ADM_256)
    assert sum(value.numel() for value in unet.parameters()) == 552_814_086
    assert len(decoder_blocks(unet)) == 18
    features = DiffusionFeatures(unet, adm_scheduler(), decoder_blocks(unet), (50,))
    assert features.unet is unet and not any(value.requires_grad for value in features.parameters())
    predicted = unet(torch.empty(1, 3, 256, 256, device="meta"), torch.zeros(1, device="meta")).sample
    assert predicted.shape == (1, 6, 256, 256)


def test_clinical_bert_gives_tokens_of_768():
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        bert = BertModel(BertConfig(vocab_size=28996), add_pooling_layer=False)
    assert TextEncoder(bert, None).dim == 768
    assert sum(value.numel() for value in bert.parameters()) == 107_719_680
    tokens = bert(torch.zeros(1, 16, dtype=torch.long, device="meta")).last_hidden_state
    assert tokens.shape == (1, 16, 768)
