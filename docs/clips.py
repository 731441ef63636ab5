"""Which of open_clip's models can make CAMs, and how: `python docs/clips.py` writes docs/clips.md.

Every configuration is built on torch's device `meta`, without weights, and a picture of 96 x 128
pixels goes through its image tower: what comes out must have the right shapes."""

import sys
from pathlib import Path

import open_clip
import torch
from fmwsss.models.adapter import Clip
from fmwsss.models.clip import build_open_clip, model_config
from open_clip.pretrained import list_pretrained_tags_by_model

PAGE = Path(__file__).parent / "clips.md"
HEAD = """# Which CLIPs can be used

Made by `make clips` from open_clip {version}. `fast`: the forms of `fmwsss.fast` fit, results are
equal and cheaper. `plain`: CAMs by autograd, affinity by the spelled-out attention, any tower.
`needs transformers`: the text tower or tokenizer comes from that package, and its configuration
from the Hugging Face hub once; the image tower was tried here. Your own network:
[add your own CLIP](../nbs/models/04_add_your_own_clip.ipynb).

**{works} of {all} configurations work, {fast} of them with the fast forms.**

| model | works | patch | tokens of a text | published weights | why not |
| --- | --- | ---: | ---: | ---: | --- |
"""


def try_shapes(clip):
    "A picture through the image tower on `meta`, a text through the text tower."
    height, width = 6 * clip.patch, 8 * clip.patch
    pixels = torch.empty(1, 3, height, width, device="meta")
    tokens, attention = clip.image.trunk(pixels, 2)
    assert clip.grid(pixels) == (6, 8) and tokens.shape[1] == clip.prefix + 48, tokens.shape
    assert attention.shape == (1, 48, 48), attention.shape
    feature = clip.feature(tokens, clip.activation(tokens), (6, 8))
    assert feature.dim() == 2 and len(feature) == 1, feature.shape


def row(name: str) -> dict:
    "What is known of one configuration."
    config = model_config(name)
    text = config["text_cfg"]
    foreign = "hf_model_name" in text
    found = dict(model=name, tokens=text.get("context_length", 77), patch="", works="no", why="")
    found["weights"] = len(list_pretrained_tags_by_model(name))
    try:
        if foreign:  # the image tower alone, with a text tower that needs no hub
            config = dict(config, text_cfg=dict(width=64, heads=1, layers=1))
        with torch.device("meta"):
            clip = Clip(build(name, config), name)
        try_shapes(clip)
    except (ValueError, AssertionError) as error:
        why = " ".join(str(error).split())
        found["why"] = why.removeprefix(f"'{name}' cannot make CAMs: ").split("; take e.g.")[0]
        return found
    fast = clip.image.fits_fast and clip.text.fits_fast and not foreign
    found["works"] = "fast" if fast else "plain"
    if foreign or "hf_tokenizer_name" in text:
        found["works"] += ", needs transformers"
    found["patch"] = clip.patch
    return found


def build(name: str, config: dict):
    "The empty model of a configuration; by the library's own way where it can be."
    if config == model_config(name):
        return build_open_clip(name)
    own = ("custom_text", "multimodal_cfg")
    config = {k: v for k, v in config.items() if k not in own}
    return open_clip.model.CustomTextCLIP(**config)


def page(rows: list) -> str:
    "The whole page."
    works = [r for r in rows if r["works"] != "no"]
    fast = sum(r["works"].startswith("fast") for r in rows)
    counts = dict(works=len(works), all=len(rows), fast=fast, version=open_clip.__version__)
    keys = ("model", "works", "patch", "tokens", "weights", "why")
    lines = ["| " + " | ".join(str(r[k]) for k in keys) + " |" for r in rows]
    return HEAD.format(**counts) + "\n".join(lines) + "\n"


def main():
    rows = []
    for name in open_clip.list_models():
        rows.append(row(name))
        print(rows[-1]["model"], rows[-1]["works"], rows[-1]["why"], flush=True)
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
