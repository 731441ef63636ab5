import http.server
import json
import pickle
import threading

import numpy as np
import open_clip
import pytest
import requests
import torch
from safetensors.torch import save_file
from small import CLIP_CONFIG, SAM_CONFIG, small_clip, small_sam

from fmwsss.files.download import fetch
from fmwsss.models import adapter, sam, weights
from fmwsss.models import clip as clip_module
from fmwsss.models.adapter import VOCABULARY, preprocess, tokenize
from fmwsss.models.clip import build_open_clip, clip_from_state_dict, load_clip
from fmwsss.models.sam import fold_batchnorm, load_sam
from fmwsss.models.weights import read_state_dict


def one_line(error):
    return "\n" not in str(error.value)


def test_preprocess_normalises_and_rounds_sides_up():
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    x = preprocess(image)
    assert x.shape == (1, 3, 30, 41) and x.dtype == torch.float32
    back = x[0].permute(1, 2, 0) * torch.tensor(adapter.CLIP_STD) + torch.tensor(adapter.CLIP_MEAN)
    assert (back * 255 - torch.from_numpy(image)).abs().max() < 1e-3
    assert preprocess([image, image], multiple=16).shape == (2, 3, 32, 48)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        [np.zeros((4, 4, 4), np.uint8)],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)],
    ],
)
def test_preprocess_refuses(images):
    with pytest.raises(ValueError) as error:
        preprocess(images)
    assert one_line(error)


def test_tokenize_is_the_standard_bpe():
    texts = ["a clean origami aeroplane.", "person with clothes,people,human"]
    assert torch.equal(tokenize(texts), open_clip.tokenize(texts))
    with pytest.raises(ValueError, match="shorten"):
        tokenize("sheep " * 80)


def write(state, path, kind):
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "plain":
        torch.save(state, path)
    elif kind == "training":
        torch.save(
            dict(epoch=3, name="x", state_dict={f"module.{k}": v for k, v in state.items()}), path
        )


@pytest.mark.parametrize("kind", ["safetensors", "plain", "training"])
def test_one_loader_for_every_file_format(tmp_path, kind):
    clip, path = small_clip(), tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    write(clip.state_dict(), path, kind)
    again = load_clip("miniclip", path)
    images, text = torch.randn(2, 3, 32, 32), tokenize(["a cat", "a dog"])
    assert torch.equal(again.encode_image(images), clip.encode_image(images))
    assert torch.equal(again.model.encode_text(text), clip.model.encode_text(text))


@pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::UserWarning",
    "ignore::DeprecationWarning",
    "ignore::torch.jit.TracerWarning",
)
def test_openai_torchscript_archive(tmp_path):
    clip, path = small_clip(), tmp_path / "ViT.pt"
    image, text = torch.randn(1, 3, 32, 32), tokenize("a cat")
    traced = torch.jit.trace_module(
        clip.requires_grad_(False), dict(forward=(image, text), encode_image=(image,))
    )
    torch.jit.save(traced, path)
    assert weights.is_torchscript(path)
    assert torch.equal(load_clip("miniclip", path).encode_image(image), clip.encode_image(image))


def test_compact_token_table_comes_back_with_zeros():
    clip, ids = small_clip(), torch.tensor([5, 320, 49406, 49407])
    state = clip.state_dict()
    table = state.pop("token_embedding.weight")
    again = clip_from_state_dict(
        state | dict(token_embedding_rows=table[ids].half(), token_ids=ids)
    ).token_embedding.weight
    assert again.shape == (VOCABULARY, 64) and again.dtype == torch.float32
    assert torch.equal(again[ids], table[ids].half().float()) and (
        again.abs().sum(1) > 0
    ).sum() == len(ids)


def test_round_fp16_touches_only_what_the_published_loader_rounds():
    state = small_clip().state_dict()
    rounded = clip_from_state_dict(state, round_fp16=True).state_dict()
    changed = {k for k in state if not torch.equal(state[k], rounded[k])}
    assert all(torch.equal(rounded[k], state[k].half().float()) for k in changed)
    assert {
        "visual.conv1.weight",
        "visual.proj",
        "text_projection",
        "transformer.resblocks.0.attn.in_proj_bias",
    } <= changed
    assert not any("ln_" in k or "embedding" in k or k == "logit_scale" for k in changed)


def test_frozen():
    for model in (
        clip_from_state_dict(small_clip().state_dict()),
        small_sam(),
        load_clip(),
        load_sam(),
    ):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert all(p.dtype == torch.float32 for p in model.parameters())


# ------------------------------------------------------------------ wrong files and names
@pytest.mark.fault
def test_wrong_files_give_one_line(tmp_path):
    path = tmp_path / "clip.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path") as error:
        load_clip("miniclip", path)
    assert one_line(error)
    save_file(small_clip().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="1,000 bytes.*truncated") as error:
        load_clip("miniclip", path)
    assert one_line(error)
    text = tmp_path / "notes.pt"
    text.write_text("hello")
    with pytest.raises(ValueError, match="not a readable weights file"):
        load_clip("ViT-B-32-quickgelu", text)
    save_file(dict(weight=torch.zeros(3)), path)
    with pytest.raises(ValueError, match="no ViT CLIP in OpenAI") as error:
        load_clip("miniclip", path)
    assert one_line(error)


@pytest.mark.fault
def test_another_architecture_is_named(tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file(small_clip().state_dict(), path)
    with pytest.raises(ValueError, match="another architecture.*expected") as error:
        load_clip("ViT-B-32-quickgelu", path)
    assert one_line(error)
    state = small_clip().state_dict()
    del state["visual.ln_post.bias"]
    with pytest.raises(ValueError, match="visual.ln_post.bias is missing"):
        clip_from_state_dict(state)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.fault
def test_pickles_are_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save(dict(weight=Bomb()), tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_state_dict(tmp_path / "bomb.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError):
        read_state_dict(tmp_path / "raw.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        ("ViT-B16", "ViT-B-16"),
        ("convnext_base", "cannot make CAMs"),
        ("RN50-quickgelu", "no patch tokens"),
    ],
)
def test_unknown_or_unfit_clip_names(name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_clip(name)
    assert one_line(error)


def test_openai_weights_need_quick_gelu(monkeypatch):
    monkeypatch.setattr(clip_module, "download_clip", lambda *a: "x")
    monkeypatch.setattr(clip_module, "read_state_dict", lambda path: {})
    monkeypatch.setattr(clip_module, "build_open_clip", lambda name: None)
    with pytest.raises(ValueError, match="ViT-B-32-quickgelu"):
        load_clip("ViT-B-32")


@pytest.mark.fault
def test_clip_without_network(monkeypatch):
    def fail(address):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(clip_module, "download_pretrained_from_url", fail)
    monkeypatch.setattr(clip_module, "from_hub", fail)
    with pytest.raises(FileNotFoundError) as error:
        load_clip("ViT-B-32-quickgelu")
    assert (
        one_line(error)
        and "https://" in str(error.value)
        and " MB" in str(error.value)
        and "pass its path" in str(error.value)
    )
    with pytest.raises(FileNotFoundError, match="openai"):
        load_clip("ViT-B-32-quickgelu", "no_such_tag_or_file")


def test_open_clip_name_with_a_local_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        open_clip,
        "get_model_config",
        lambda name: {k: dict(v) if isinstance(v, dict) else v for k, v in CLIP_CONFIG.items()},
    )
    monkeypatch.setattr(clip_module, "list_pretrained_tags_by_model", lambda name: [])
    clip = small_clip()
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    assert torch.equal(load_clip("any", tmp_path / "w.pt").visual.proj, clip.visual.proj)
    assert isinstance(build_open_clip("any"), open_clip.CLIP)


# ------------------------------------------------------------------ SAM
def test_folding_batchnorm_is_exact():
    torch.manual_seed(0)
    stem = sam.ConvStem(8, [4, 8], [1, 1], norm=True)
    for _ in range(3):
        stem(torch.randn(4, 3, 16, 16))
    folded = sam.ConvStem(8, [4, 8], [1, 1])
    folded.load_state_dict(fold_batchnorm(stem.state_dict()))
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(stem.eval()(x), folded(x), atol=1e-5)


def test_sam_from_config_and_file(tmp_path):
    sam = small_sam()
    save_file(sam.state_dict(), tmp_path / "sam.safetensors")
    with pytest.raises(FileNotFoundError, match="no config"):
        load_sam("minisam", tmp_path / "sam.safetensors")
    (tmp_path / "sam.json").write_text(json.dumps(SAM_CONFIG))
    again = load_sam("minisam", tmp_path / "sam.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.image_encoder(x), sam.image_encoder(x))


def test_a_published_sam_is_built_without_random_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(sam.sam_model_registry, "vit_b", lambda: sam.build_sam(SAM_CONFIG))
    expected = small_sam()
    torch.save(expected.state_dict(), tmp_path / "sam.pth")
    found = load_sam("vit_b", tmp_path / "sam.pth")
    picture = torch.rand(3, 64, 64) * 255
    assert torch.equal(found.preprocess(picture), expected.preprocess(picture))
    assert not any(t.is_meta for t in (*found.parameters(), *found.buffers()))
    assert torch.equal(found.image_encoder(picture[None]), expected.image_encoder(picture[None]))


@pytest.mark.fault
def test_wrong_sam(tmp_path):
    with pytest.raises(ValueError, match="vit_l") as error:
        load_sam("vit_x")
    assert one_line(error)
    with pytest.raises(FileNotFoundError):
        load_sam("vit_b", tmp_path / "sam_vit_b_01ec64.pth")


@pytest.fixture
def server():
    "A file server that can resume, break off after `limit` bytes, and counts requests."
    content = np.random.default_rng(0).bytes(3 << 20)

    class Handler(http.server.BaseHTTPRequestHandler):
        limit, requests = None, []

        def do_GET(self):
            begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.requests.append(begin)
            if begin >= len(content):
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : self.limit])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file.bin", content, Handler
    server.shutdown()


@pytest.mark.fault
def test_fetch_resumes_verifies_and_caches(server, tmp_path):
    import hashlib

    url, content, handler = server
    sha = hashlib.sha256(content).hexdigest()
    handler.limit = 2 << 20
    with pytest.raises(FileNotFoundError, match="could not download"):
        fetch(url, tmp_path, f"sha256:{sha}", progress=False, tries=1)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin.part"]
    handler.limit = None
    assert fetch(url, tmp_path, f"sha256:{sha}", progress=False).read_bytes() == content
    assert handler.requests[0] == 0 and handler.requests[1] > 1 << 19, handler.requests
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    count = len(handler.requests)
    fetch(url, tmp_path, f"sha256:{sha}", progress=False)
    assert len(handler.requests) == count
    (tmp_path / "file.bin").rename(
        tmp_path / "file.bin.part"
    )  # killed between the last byte and the check
    assert fetch(url, tmp_path, f"sha256:{sha}", progress=False).read_bytes() == content


@pytest.mark.fault
def test_fetch_wrong_checksum_and_no_network(server, tmp_path):
    url, _, _ = server
    with pytest.raises(ValueError, match="wrong checksum") as error:
        fetch(url, tmp_path, "sha256:" + "0" * 64, 3 << 20, progress=False)
    assert one_line(error) and url in str(error.value) and not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError) as error:
        fetch(
            "http://127.0.0.1:9/sam.pth",
            tmp_path,
            "sha256:" + "0" * 64,
            375_042_383,
            progress=False,
        )
    assert one_line(error) and not list(tmp_path.iterdir())
    assert all(
        part in str(error.value)
        for part in ("http://127.0.0.1:9/sam.pth", "sam.pth", "375 MB", str(tmp_path))
    )
