import pytest
import torch
from torch import nn

from toolkit.errors import CheckpointError
from toolkit.nn.dino import MEAN, STD, Dino, load_dino


def small(seed=0, **sizes):
    torch.manual_seed(seed)
    model = Dino(**{"dim": 128, "depth": 2, "patch": 8, "grid": 4, **sizes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval()


def test_names_and_sizes_of_the_official_base_model():
    with torch.device("meta"):
        state = Dino().state_dict()
    assert state["patch_embed.proj.weight"].shape == (768, 3, 8, 8) and state["pos_embed"].shape == (1, 785, 768)
    assert state["blocks.11.attn.qkv.weight"].shape == (2304, 768)
    assert state["blocks.0.mlp.fc1.bias"].shape == (3072,)


def test_blocks_against_torch():
    model = small()
    x = torch.randn(2, 5, 128)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(128, 2, 512, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).eval()
        names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1.",
                 "linear2.": "mlp.fc2."}  # fmt: skip
        state = block.state_dict()
        for theirs, ours in names.items():
            for part in ("weight", "bias"):
                state[theirs + part] = state.pop(ours + part)
        layer.load_state_dict(state)
        with torch.no_grad():
            assert torch.allclose(block(x), layer(x), atol=1e-5)


def test_patches_positions_and_colours():
    model = small(depth=0)
    model.pos_embed.data.zero_()
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        found = model(image)
        assert found.shape == (1, 128, 4, 6)
        patch = (image[0, :, 8:16, 24:32] - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        token = (model.patch_embed["proj"].weight * patch).sum((1, 2, 3)) + model.patch_embed["proj"].bias
        assert torch.allclose(found[0, :, 1, 3], model.norm(token), atol=1e-4)
        model.pos_embed.data.fill_(2.0)  # a constant position stays one at any size
        shifted = model(image)
        assert torch.allclose(shifted[0, :, 1, 3], model.norm(token + 2), atol=1e-4)


def test_checkpoint_round_trip_and_faults(tmp_path):
    model = small()
    path = tmp_path / "dino.pth"
    torch.save(model.state_dict(), path)
    loaded = load_dino(path)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(image), model(image)) and not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(CheckpointError, match="no such file"):
        load_dino(tmp_path / "none.pth")
    state = model.state_dict()
    del state["blocks.1.mlp.fc2.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="fc2"):
        load_dino(path)
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_dino(path)
