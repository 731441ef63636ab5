"""Folders as people really have them, through `fmwsss masks` and `fmwsss export`.

One run takes as many kinds at once as do not disturb each other: each was a fault of its own."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fmwsss.app.cli import app
from fmwsss.app.runner import make_room
from fmwsss.minivoc.scenes import scene

pytestmark = pytest.mark.fault
SMALL = """models.clip=miniclip models.clip_weights=null models.sam=minisam workers=1 device=cpu
masks.sam.points_per_side=4 masks.sam.pred_iou_thresh=0.3 masks.sam.stability_thresh=0.3
masks.sam.min_region_area=20 strips=1 notebooks=[seeds]"""
TASK = "training.steps=3 training.warmup=1 training.batch_size=2"
SETTINGS = SMALL.split()
SETTINGS += [f"{task}.{s}" for task in ("classification", "segmentation") for s in TASK.split()]


def call(*words):
    "The command line -> (exit code, what it printed)."
    found = CliRunner().invoke(app, list(map(str, words)), env=dict(COLUMNS="300", TERM="dumb"))
    return found.exit_code, found.output


def masks(folder, out, *settings):
    "`fmwsss masks` with miniature models and three iterations."
    pairs = [word for s in [*SETTINGS, *settings] for word in ("--set", s)]
    return call("masks", folder, "--out", out, "--quiet", *pairs)


def photo(path, number, side=96):
    "A drawn picture as a file."
    Image.fromarray(scene(number).image).resize((side, side)).save(path)


def table(folder, rows):
    "labels.csv of {name: labels}."
    lines = [f"{name},{labels}\n" for name, labels in rows.items()]
    (folder / "labels.csv").write_text("image,labels\n" + "".join(lines), encoding="utf-8")


def label_map(out, name):
    "A pseudo label of a run."
    return np.array(Image.open(out / f"pseudo_labels/all/{name}.png"))


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    "A folder with odd names, and its run: (folder, run folder, exit code, text)."
    root = tmp_path_factory.mktemp("people")
    folder = root / "album #2: {best} $1"
    folder.mkdir()
    photo(folder / "large.jpg", 4, 800)
    photo(folder / "from $1_ $2.jpg", 5)
    photo(folder / "plain.bmp", 6)
    photo(folder / "nothing.jpg", 7)
    rows = {"large.jpg": "bus;sofa", "from $1_ $2.jpg": "US$ coin of $1^", "plain.bmp": "dog"}
    table(folder, rows | {"./nothing.jpg": "", "gone.jpg": "cat"})
    shutil.copy(folder / "plain.bmp", folder / "gone.jpg")
    kernels = root / "share/kernels/python3"
    kernels.mkdir(parents=True)
    broken = dict(argv=["false"], display_name="Python 3", language="python")
    (kernels / "kernel.json").write_text(json.dumps(broken))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(root / "share"))
        patch.setenv("MPLBACKEND", "TkAgg")
        code, text = masks(folder, root / "run {seed}", "data.options.max_side=160")
    return folder, root / "run {seed}", code, text, rows


def test_the_run_ends_well(album):
    _, _, code, text, _ = album
    assert code == 0, text


def test_every_photo_has_its_mask_and_the_one_without_a_class_an_empty_one(album):
    _, out, _, _, _ = album
    names = {p.stem for p in (out / "pseudo_labels/all").glob("*.png")} - {"legend"}
    assert names == {"large", "from $1_ $2", "plain", "nothing", "gone"}
    assert not label_map(out, "nothing").any()


def test_masks_have_the_size_of_their_photos_and_a_legend(album):
    _, out, _, _, _ = album
    assert label_map(out, "large").shape == (800, 800)
    classes = (out / "pseudo_labels/all/classes.csv").read_text()
    assert "bus" in classes and "dog" in classes


def test_names_are_only_names_on_the_page(album):
    _, out, _, _, _ = album
    page = (out / "report.html").read_text()
    assert "US$ coin" in page or "from $1_" in page
    assert "Traceback" not in page


def test_export_has_image_and_label_of_one_size(album):
    _, out, _, _, _ = album
    code, text = call("export", out)
    assert code == 0, text
    made = out / "export/mmseg"
    size = Image.open(made / "img_dir/all/large.jpg").size
    assert size == Image.open(made / "ann_dir/all/large.png").size


def test_a_second_run_sees_what_changed_and_keeps_nothing_old(album):
    folder, out, _, _, rows = album
    first = np.array(Image.open(folder / "plain.bmp"))
    second = scene(9).image[:96, :96].copy()
    second[:8] = first[:8]  # the top rows stand last in a BMP
    Image.fromarray(second).save(folder / "plain.bmp")
    content = (folder / "from $1_ $2.jpg").read_bytes()
    (folder / "from $1_ $2.jpg").write_bytes(content[: len(content) // 2])
    table(folder, rows)
    code, text = masks(folder, out, "data.options.max_side=160")
    assert code == 0, text
    names = {p.stem for p in (out / "pseudo_labels/all").glob("*.png")} - {"legend"}
    assert names == {"large", "plain"}
    assert "from $1_ $2" in text and "skipped" in text
    stages = json.loads((out / "run.json").read_text())["stages"]
    made = [s for s in stages if s["stage"] == "masks_sam" and s["part"] == "all"]
    assert made and made[0]["computed"] == 1


def test_one_class_everywhere_is_told(tmp_path):
    for number in (4, 5):
        photo(tmp_path / f"{number}.jpg", number)
    table(tmp_path, {"4.jpg": "dog", "5.jpg": "dog"})
    code, text = masks(tmp_path, tmp_path / "run")
    assert code == 0 and "only one class" in text, text
    assert len(list((tmp_path / "run/pseudo_labels/all").glob("[45].png"))) == 2


def two_photos(folder, rows):
    "Two drawn pictures, their table, and an empty folder for masks."
    for number in (4, 5):
        photo(folder / f"{number}.jpg", number)
    table(folder, rows)
    (folder / "masks").mkdir()


def test_masks_of_0_and_255_are_told(tmp_path):
    two_photos(tmp_path, {"4.jpg": "animal", "5.jpg": "plant"})
    for number in (4, 5):
        label = np.zeros((96, 96), np.uint8)
        label[20:60, 20:60] = 255
        Image.fromarray(label).save(tmp_path / f"masks/{number}.png")
    code, text = masks(tmp_path, tmp_path / "run", "data.options.mask_dir=masks")
    assert "255 means ignore" in text, text


def test_a_folder_of_masks_that_gives_none_is_told(tmp_path):
    two_photos(tmp_path, {"4.jpg": "animal", "5.jpg": "plant"})
    Image.fromarray(np.ones((96, 96), np.uint8)).save(tmp_path / "masks/4_mask.png")
    code, text = masks(tmp_path, tmp_path / "run", "data.options.mask_dir=masks")
    assert "mask" in text.lower().replace("masks are in", ""), text


def test_photos_without_a_true_mask_are_not_called_faulty(tmp_path):
    two_photos(tmp_path, {"4.jpg": "animal", "5.jpg": "plant"})
    label = np.zeros((96, 96), np.uint8)
    label[20:60, 20:60] = 2
    Image.fromarray(label).save(tmp_path / "masks/5.png")
    more = ["data.options.mask_dir=masks", "seeding.powers=[0.6,4]"]
    code, text = masks(tmp_path, tmp_path / "run", *more)
    assert code == 0 and "skipped" not in text, text
    rows = (tmp_path / "run/tables/seeds.csv").read_text().splitlines()
    assert len(rows) > 1 and ",1," in rows[1]


def test_more_classes_than_a_label_map_can_hold(tmp_path):
    two_photos(tmp_path, {"4.jpg": "thing 254", "5.jpg": "thing 255"})
    names = [f"thing {n:03d}" for n in range(300)]
    code, text = masks(tmp_path, tmp_path / "run", f"data.options.classes={names}")
    if code:
        assert "classes" in text and "Traceback" not in text
        return
    found = [set(np.unique(label_map(tmp_path / "run", n)).tolist()) for n in "45"]
    assert found[0] <= {0, 255} and found[1] <= {0, 256} and found != [{0}, {0}]


@pytest.mark.parametrize("mine", ["pseudo_labels/all/mine.png", "tables/mine.csv", "report.html"])
def test_what_somebody_else_has_in_the_folder_is_moved_aside(tmp_path, mine):
    (tmp_path / mine).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mine).write_text("by hand")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/first_photo.png").write_text("the first look of this run")
    (note,) = make_room(tmp_path, dict(preset="photos", data="a"))
    assert mine.split("/")[0] in note and "\n" not in note
    (kept,) = (tmp_path / "previous").glob(f"*/{mine}")
    assert kept.read_text() == "by hand" and not (tmp_path / mine).exists()
    assert (tmp_path / "figures/first_photo.png").exists()
    assert make_room(tmp_path, dict(preset="photos", data="a")) == []
