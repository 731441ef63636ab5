"""The explorer without a browser: every knob answers, the page follows and says what is wrong."""
import io
import json
import subprocess
import sys
import textwrap
import warnings
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fmwsss.explore.chain import MAPS, Explorer, Knobs
from fmwsss.explore.page import App, controls, open_upload
from fmwsss.explore.photos import SIDE, Picture, from_dataset, photo, voc_picture
from fmwsss.explore.pictures import (
    explain_mask,
    iou_table,
    jpeg,
    legend,
    panels,
    preset_lines,
    titles,
)
from fmwsss.fast.runs import paint
from fmwsss.files.errors import SettingsError
from fmwsss.method.evaluation import confusion, scores
from fmwsss.method.masks import Masks
from fmwsss.method.sams import sams
from fmwsss.models.adapter import Clip
from fmwsss.refiners.refiner import open_refiner
from small import small_clip, small_sam

ROOT = Path(__file__).parent.parent


def noisy_picture():
    "A picture (64, 48) of two coloured blocks, and its truth with an ignored row."
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 48), np.uint8)
    truth[10:40, 8:30] = 8
    truth[40:60, 20:44] = 12
    colours = np.full((64, 48, 3), [120, 160, 90])
    colours[truth == 8] = [200, 60, 40]
    colours[truth == 12] = [60, 80, 200]
    truth[0] = 255
    return (colours + rng.integers(0, 20, (64, 48, 3))).astype(np.uint8), truth


@pytest.fixture
def explorer():
    "Small random models and two noisy pictures, the second without truth."
    image, truth = noisy_picture()
    pictures = [voc_picture("two", image, truth), photo(image, ["cat"], "mine")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ready = Explorer(pictures, small_clip(), small_sam(), background=["wall", "sky"])
        ready.move(source="felzenszwalb")
        yield ready


# the chain


def test_knobs_have_the_names_of_settings():
    from fmwsss.study import settings

    names = {f.name for f in fields(Knobs)}
    rule = {f.name for f in fields(settings.Rule)}
    affinity = {f.name for f in fields(settings.Affinity)}
    assert {"filter_thresh", "priority"} <= names & rule
    assert "rounds" in names & affinity and "power" in affinity and "affinity_power" in names
    seeding = yaml.safe_load(preset_lines(Knobs()))["seeding"]
    assert set(seeding) <= {f.name for f in fields(settings.Seeding)}
    assert all(set(r) <= rule for r in seeding["rules"])
    assert yaml.safe_load(preset_lines(Knobs(filter_thresh=None, maps="cam")))["seeding"] == dict(
        affinity=None,
        box_thresholds=[0.4],
        powers=[1],
        rules=[dict(filter_thresh=None, priority=["level", "confidence"])],
    )


def test_a_view_is_the_methods_own_result(explorer):
    view = explorer.move(method="threshold", power=2.0)
    assert view.seed.shape == (64, 48) and view.maps.shape == (2, 64, 48)
    assert set(np.unique(view.seed)) <= {0, 8, 12}
    expected = scores(confusion(view.seed, view.picture.truth, 21))["iou"][[0, 8, 12]]
    np.testing.assert_array_equal(list(view.iou.values()), expected)
    assert view.miou == pytest.approx(expected.mean())
    assert list(view.iou) == ["background", "cat", "dog"]


def other_clip():
    "A small CLIP of another make: timm's tower with attention pooling, as SigLIP has; no weights."
    from open_clip.model import CustomTextCLIP

    torch.manual_seed(0)
    tower = dict(timm_model_name="vit_tiny_patch16_224", timm_model_pretrained=False)
    tower.update(timm_pool="map", timm_proj="none", image_size=64)
    text = dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2)
    return Clip(CustomTextCLIP(embed_dim=192, vision_cfg=tower, text_cfg=text), "other")


def test_any_clip_can_be_explored(explorer):
    "Another CLIP by the plain forms; and a plain CLIP gives what the fast one gives."
    other = Explorer(explorer.pictures, other_clip(), background=["wall", "sky"])
    view = other.move(source="felzenszwalb")
    cams, attention = other.class_maps(0)
    assert not other.clip.fits_fast and cams.shape == (2, 4, 3) and attention.shape == (12, 12)
    assert view.maps.shape == (2, 64, 48) and np.isfinite(view.maps).all()
    plain = small_clip()
    plain.plain = True
    same = Explorer(explorer.pictures, plain, background=["wall", "sky"]).class_maps(0)
    for a, b in zip(same, explorer.class_maps(0)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("method", ["threshold", "sams", "crf", "pamr"])
def test_every_refiner_can_make_the_seed(explorer, method):
    view = explorer.move(method=method, power=2.0)
    classes = np.array(view.picture.values) - 1
    refiner = open_refiner(method)
    more = dict(filter_thresh=None) if method == "sams" else {}
    by_hand = refiner(view.picture.image, view.maps, classes, view.masks, power=2.0, **more)
    assert np.array_equal(view.seed, by_hand)
    of_sams = sams(view.maps, view.masks, classes, 2.0)[1]
    assert np.array_equal(view.details.scores, of_sams.scores)


CHANGES = [
    dict(maps="cam"),
    dict(maps="uniform"),
    dict(rounds=3),
    dict(affinity_power=3),
    dict(box_threshold=0.8),
    dict(source="slic"),
    dict(levels=(0,)),
    dict(filter_thresh=0.3),
    dict(priority=("-area", "confidence")),
    dict(method="threshold"),
    dict(power=8.0),
    dict(shown=1),
]


@pytest.mark.parametrize("changes", CHANGES)
def test_every_knob_changes_something(explorer, changes):
    before = explorer.move(filter_thresh=None)
    after = explorer.move(**changes)
    pictures = [panels(v) for v in (before, after)]
    same = all(np.array_equal(pictures[0][k], pictures[1][k]) for k in pictures[0])
    same = same and np.array_equal(before.maps, after.maps)
    assert not same or len(before.masks) != len(after.masks)
    assert explorer.knobs == after.knobs != before.knobs


def test_heavy_work_is_done_once(explorer, monkeypatch):
    "Network and masks once a picture; nothing at all for knobs that only look at the result."
    asked = []

    def blocks(image):
        asked.append(image)
        return Masks.of(np.ones((1, 64, 48), bool))

    own = Explorer(explorer.pictures, explorer.clip, sources=dict(blocks=blocks))
    own.prepare("blocks")
    assert len(asked) == 2

    def no_more(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("fmwsss.explore.chain.class_maps", no_more)
    moves = (dict(source="blocks"), dict(power=2.0), dict(box_threshold=0.2), dict(picture=1))
    for changes in (*moves, dict(picture=0, levels=(1, 2))):
        own.move(**changes)
    assert len(asked) == 2
    monkeypatch.setattr(own, "compute", no_more)
    own.move(shown=1)
    own.move(mask=0)
    own.click(3, 3)


def test_preparing_can_be_stopped(explorer):
    asked = []
    explorer.sources["counted"] = lambda image: asked.append(image)
    explorer.prepare("counted", stop=lambda: True)
    assert not asked


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(picture=2), "no picture 2"),
        (dict(shown=2), "no class 2"),
        (dict(mask=10**6), "take part"),
        (dict(source="felsenszwalb"), "mask source 'felsenszwalb' is unknown: did you mean 'felz"),
        (dict(maps="caaa"), "maps 'caaa' is unknown: did you mean 'caa'"),
        (dict(method="smas"), "refiner 'smas' is unknown: did you mean 'sams'"),
        (dict(method="affinity"), "has not learned yet"),
        (dict(colour=1), "knob 'colour' is unknown"),
        (dict(priority=("lewel",)), "priority"),
    ],
)
def test_a_wrong_position_is_refused_and_nothing_moves(explorer, changes, words):
    before = explorer.knobs
    with pytest.raises(ValueError, match=words):
        explorer.move(**changes)
    assert explorer.knobs == before
    assert explorer.view().knobs == before


def test_parts_of_others_are_opened_by_name(explorer, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(textwrap.dedent("""
        import numpy as np
        from fmwsss.method.masks import Masks

        def half(image):
            mask = np.zeros((1, *image.shape[:2]), bool)
            mask[0, : len(image) // 2] = True
            return Masks.of(mask)

        def nothing(image, cams, classes, masks=None, *, power=1.0):
            return np.zeros(cams.shape[-2:], np.uint8)
    """))
    monkeypatch.syspath_prepend(str(tmp_path))
    view = explorer.move(source="my_parts:half", method="my_parts:nothing")
    assert len(view.masks) == 1 and not view.seed.any()
    app = App(explorer, prefetch=False)
    assert app.controls["source"].value == "my_parts:half"
    assert app.controls["method"].value == "my_parts:nothing"


def test_clicks_choose_the_top_mask_and_then_the_one_below(explorer):
    view = explorer.move(filter_thresh=None)
    top = paint(view.masks, view.details.order)[20, 15]
    first, second = explorer.click(15, 20), explorer.click(15, 20)
    assert first.knobs.mask == top != second.knobs.mask
    order = list(first.details.order)
    assert order.index(second.knobs.mask) < order.index(top)
    assert second.masks[[second.knobs.mask]].dense()[0, 20, 15]
    assert "it becomes" in explain_mask(first) and "In truth" in explain_mask(first)


def test_no_mask_at_all_is_background_and_a_click_chooses_none(explorer):
    explorer.sources["nothing"] = lambda image: Masks.of(np.zeros((0, 64, 48), bool))
    view = explorer.move(source="nothing")
    assert not view.seed.any() and explorer.click(3, 3).knobs.mask == -1
    assert set(panels(view)) == {"picture", "map", "masks", "seed", "truth"}


# what to look at


def test_a_picture_needs_a_class():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="at least one class"):
        photo(image, [" "])
    with pytest.raises(ValueError, match="1 prompts"):
        Picture("a", image, ["cat", "dog"], ["cat"])
    with pytest.raises(ValueError, match="no picture"):
        Explorer([], small_clip(), small_sam())


class Cameras:
    "A data set of two photos as a camera makes them."

    ids, classes = ["a", "b"], ["ant", "bee"]

    def image(self, i):
        return np.full((1500, 3000, 3), 90, np.uint8)

    def labels(self, i):
        return np.array([i, 1], np.uint8)

    def mask(self, i):
        truth = np.zeros((1500, 3000), np.uint8)
        truth[:750] = 2
        truth[:, :30] = 255
        return truth if i == 0 else None


def test_a_data_set_can_be_explored_and_its_photos_are_scaled():
    first, second = from_dataset(Cameras(), [0, 1], ["ant insect", "bee insect"])
    assert (first.classes, first.prompts, first.values) == (["bee"], ["bee insect"], [2])
    assert second.values == [1, 2] and second.truth is None
    assert first.image.shape == (SIDE // 2, SIDE, 3) and first.truth.shape == (SIDE // 2, SIDE)
    assert set(np.unique(first.truth)) == {0, 2, 255}
    small, _ = from_dataset(Cameras(), [0, 1], side=100)
    assert small.image.shape == (50, 100, 3)
    assert photo(first.image, ["bee"]).image is first.image


# what one sees


def test_panels_of_an_own_photo_have_no_truth(explorer):
    view = explorer.move(picture=1)
    assert "truth" not in panels(view) and view.iou == {} and np.isnan(view.miou)
    assert "No truth" in iou_table(view)
    shown = panels(view)["seed"]
    assert cv2.imdecode(np.frombuffer(jpeg(shown), np.uint8), 1).shape == shown.shape


def test_colours_and_lines_are_said_in_words(explorer):
    for maps in MAPS:
        view = explorer.move(maps=maps)
        assert set(titles(view)) == set(panels(view))
        words = legend(view)
        assert "cat" in words and "dog" in words and "rgb(" in words
        assert ("white boxes" in words) == (maps != "cam") and "yellow" not in words
    assert "yellow" in legend(explorer.move(mask=0))
    explorer.add(photo(noisy_picture()[0], ["<b>cat</b>"]))
    assert "<b>cat" not in legend(explorer.move(picture=2))


def test_labels_are_outlined(explorer):
    shown = panels(explorer.move(method="threshold"))
    view = explorer.view()
    factor = shown["seed"].shape[0] // view.seed.shape[0]
    inside = np.argwhere(np.diff(view.seed.astype(int), axis=1))[0] * factor
    assert (shown["seed"][inside[0], inside[1] + factor - 1] == 255).all()


# the page


def test_controls_are_the_knobs():
    assert set(controls()) == {f.name for f in fields(Knobs)}


def test_page_follows_and_reports(explorer):
    app = App(explorer, prefetch=False)
    before = app.panels["seed"].data
    app.controls["power"].value = 8.0
    assert explorer.knobs.power == 8.0 and app.panels["seed"].data != before
    app.panels["masks"].clicked = [0.3, 0.3, 1]
    assert explorer.knobs.mask == app.controls["mask"].value >= 0
    assert "Mask" in app.message.value and "yellow" in app.legend.value
    app.controls["filter_thresh"].value = "no filter"
    assert explorer.knobs.filter_thresh is None and "filter_thresh: null" in app.preset.value
    app.controls["filter_thresh"].value = "0.45"
    assert explorer.knobs.filter_thresh == 0.45
    app.controls["picture"].value = 1
    assert app.controls["shown"].options == (("cat", 0),)
    assert app.panels["truth"].layout.visibility == "hidden"
    app.controls["levels"].value = ()
    assert "0 masks take part" in app.message.value and not explorer.view().seed.any()


def test_positions_between_the_marks_can_be_shown(explorer):
    explorer.move(power=1.7, filter_thresh=0.33, priority=("area",))
    app = App(explorer, prefetch=False)
    assert app.controls["power"].value == 1.7
    assert app.controls["filter_thresh"].value == "0.33"
    assert app.controls["priority"].value == ("area",)


def test_an_error_is_a_line_and_the_controls_go_back(explorer, monkeypatch):
    for name in ("pydensecrf", "pydensecrf.densecrf"):
        monkeypatch.setitem(sys.modules, name, None)
    app = App(explorer, prefetch=False)
    app.controls["method"].value = "crf"
    assert 'pip install &quot;fmwsss[crf]&quot;' in app.message.value
    assert app.controls["method"].value == explorer.knobs.method == "sams"


def upload(content):
    "What the upload button delivers."
    content = memoryview(content)
    file = dict(name="red.png", type="image/png", size=len(content), last_modified=None)
    return dict(new=(dict(file, content=content),))


def test_page_takes_a_photo(explorer):
    app = App(explorer, prefetch=False)
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    app.receive(upload(file.getvalue()))
    assert "First write" in app.message.value and len(explorer.pictures) == 2
    app.classes.value = "cat, dog"
    app.receive(upload(b"no image"))
    assert "red.png is no image" in app.message.value and len(explorer.pictures) == 2
    app.receive(upload(file.getvalue()))
    assert explorer.pictures[explorer.knobs.picture].classes == ["cat", "dog"]
    assert open_upload(upload(file.getvalue())["new"][0], ["cat"]).image.shape == (30, 40, 3)


def test_a_script_with_the_page_ends_cleanly():
    "The pictures that are still being prepared do not hold the program up, nor crash it."
    code = """
        import warnings
        warnings.simplefilter("ignore")
        import torch
        from fmwsss.explore.chain import Explorer
        from fmwsss.explore.page import App
        from fmwsss.explore.photos import drawn
        app = App(Explorer(drawn(6)))
        print(len(app.explorer.pictures), "pictures")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (0, "6 pictures\n", "")


def test_unknown_knob_is_a_settings_error(explorer):
    with pytest.raises(SettingsError):
        explorer.move(filtre_thresh=0.3)


def test_no_committed_notebook_holds_a_dead_widget():
    "Readers without a kernel would see an error: cells with widgets carry the tag skip-execution."
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        kinds = {
            k for c in notebook["cells"] for o in c.get("outputs", []) for k in o.get("data", {})
        }
        assert "application/vnd.jupyter.widget-view+json" not in kinds, path.name
        assert "widgets" not in notebook["metadata"], path.name
