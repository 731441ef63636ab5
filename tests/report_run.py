"""Made-up run folders for the tests of the page; none of their numbers is a result."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SEEDS = """task,method,split,images,miou,low,high,seconds_per_image
fixed,sams,val,40,0.5712,0.5501,0.5907,0.152
classification,cam,train,60,0.5012,0.4801,0.5199,0.004
classification,cam,val,40,0.5123,0.4951,0.5302,0.0041
classification,caa,val,40,0.5374,0.5203,0.5548,0.005
classification,caa_uniform,val,40,0.4981,0.4804,0.5155,0.005
classification,crf,val,40,0.5612,0.5433,0.5794,0.031
classification,sams,val,40,0.6345,0.6122,0.6561,0.152
classification,sams_felzenszwalb,val,40,0.6501,0.6279,0.6713,0.083
classification,bound,val,40,0.8711,0.8602,0.8815,0.152
segmentation,cam,val,40,0.5483,0.5308,0.5651,0.004
segmentation,caa,val,40,0.5661,0.5488,0.5839,0.005
segmentation,crf,val,40,0.6023,0.5847,0.6199,0.031
segmentation,sams,val,40,0.6614,0.6402,0.6823,0.152
"""
MODELS = """model,measure,value,target
clip,"zero-shot multi-label mAP, val",0.962,0.95
sam,"mean best IoU per object, val",0.713,0.75
sam,masks an image,38.25,
"""
CLAIMS = """claim,paper,found,verdict,by_how_much,fails_if,figure,split,images,seeds,comment
SAMS gives better seeds than dense CRF,+5 points (Table 3),60.2 → 66.1 % mIoU,holds,+5.9 points (+4.0 to +7.7),the interval reaches 0,SAMS seed,val,40,3,
The filter matters,,66.1 → 63.7 % mIoU,opposite,-2.4 points (-3.9 to -0.6),the interval reaches 0,SAMS seed,val,40,3,<script>alert('comment')</script>
Affinity improves on the raw CAM,,51.2 → 53.7 % mIoU,undecided,+2.5 points (-0.3 to +5.1),the interval reaches 0,raw CAM,val,40,3,
Fine seeds are better than coarse seeds,better (Fig. 5),63.5 → 63.6 % mIoU,no effect,+0.1 points (-0.2 to +0.3),the interval reaches 0,SAMS seed,val,40,3,
Fine seeds teach a network better,,62.0 → 66.0 % mIoU,full run,+4.0 points (+3.1 to +5.0),,,val,,,this run is too small; the full run says: holds
Learned prompts beat prompts by hand,,57.1 → 63.5 % mIoU,holds,+6.3 points (+4.1 to +8.8),the interval reaches 0,SAMS seed,val,40,3,
"""
FIRST_EDITION = """claim,expected,found,holds,by_how_much,comment,split
SAMS improves on CAA alone,better,70.7 → 89.4 % mIoU,yes,+18.8 points (+17.2 to +20.3),,val
The filter helps,better,89.3 → 86.9 % mIoU,undecided,-2.42 points (-3.88 to +0.46),the interval contains zero: these images cannot tell,val
Fine seeds are better than coarse seeds,better,89.4 → 89.3 % mIoU,undecided,-0.1 points (-0.5 to +0.0),the interval contains zero: these images cannot tell,val
The contrastive loss beats BCE,better,69.0 → 68.8 % mIoU,no,-0.15 points (-0.31 to -0.03),the opposite is measured here,val
Memory does not grow,at most 1.05 times,1.2,no,1.1 of the limit,,val
SAMS is faster,,,,,not measured here,
"""
PUBLISHED = """method,what,split,miou,source
CLIP-ES,CAM,train,70.8,authors' repository
"""
PER_CLASS = """class,iou,recall
<b>aeroplane</b> & co,0.5,0.75
bicycle,,0.25
none,0.125,1.0
"""
TABLES = dict(seeds=SEEDS, models=MODELS, claims=CLAIMS, published=PUBLISHED, per_class=PER_CLASS)
TABLES["settings"] = "setting,value,chosen_on\nbackground power,2,tune\n"
TITLES = ["image", "CAM", "CAA", "masks", "coarse seed", "fine CAA", "fine seed", "truth"]


def record(**more):
    "run.json of a made-up run."
    books = [
        dict(name="seeds", seconds=20.5, ok=True),
        dict(name="refiners", seconds=1.5, ok=False),
    ]
    parameters = dict(
        data=dict(kind="minivoc", root=None),
        caa=dict(power=2),
        fixed_prompt="a photo of a {}.",
        notebooks=["seeds", "refiners", "gallery"],
    )
    return (
        dict(
            preset="toy <preset>",
            quick=True,
            commit="0123456789abcdef",
            dirty=True,
            started="2026-01-31T12:00:00",
            seconds=312.4,
            command="fmwsss reproduce toy --set 'a=<b>'",
            seeds=[0, 1],
            parameters=parameters,
            differs_from_paper={"models.clip": "mini<clip>", "segmentation.training.steps": 60},
            versions=dict(python="3.11"),
            machine=dict(cores=2),
            stages=[dict(stage="sams", images=40, computed=30, reused=10, seconds=6.1)],
            notes=["A note & more."],
            notebooks=books,
            skipped={},
            errors={},
        )
        | more
    )


def make_run(root, parts=("tables", "figures", "notebooks"), pictures=2, **more):
    "A run on drawn pictures: `parts` of it, `more` over its run.json."
    root.mkdir(parents=True, exist_ok=True)
    (root / "run.json").write_text(json.dumps(record(**more)))
    for part in parts:
        (root / part).mkdir()
    if "tables" in parts:
        for name, text in TABLES.items():
            (root / f"tables/{name}.csv").write_text(text)
    if "figures" in parts:
        for k in range(pictures):
            Image.fromarray(picture(k)).save(root / f"figures/strip_{k}.png")
        (root / "figures/strip_0.txt").write_text('A "quoted" <caption>.')
        drawing = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100"><rect width="90" height="50"/></svg>'
        (root / "figures/bars.svg").write_text(drawing)
        make_strip(root / "figures/strip.png")
    if "notebooks" in parts:
        for name in ("seeds", "refiners"):
            (root / f"notebooks/{name}.ipynb").write_text("{}")
    return root


def make_strip(path, titles=TITLES):
    "A strip of two rows with the titles of its panels, as the seeds notebook writes it."
    path.write_bytes(strip_bytes(tuple(titles)))


@functools.cache
def strip_bytes(titles):
    "A strip as the bytes of a PNG file."
    from matplotlib import pyplot
    from fmwsss import plots

    panels = [picture(k, (64, 64)) for k in range(2 * len(titles))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.png"
        pyplot.close(plots.grid(panels, titles, columns=len(titles), path=path))
        return path.read_bytes()


def make_photo_run(root, photos=14):
    "A run on own photos without truth: photos, label maps, a legend, one photo skipped."
    folder = root / "photos"
    folder.mkdir(parents=True)
    data = dict(kind="folder", root=str(folder), options={})
    settings = dict(data=data, notebooks=["seeds"])
    books = [dict(name="seeds", seconds=20.5, ok=True)]
    run = make_run(root / "run", (), parameters=settings, notebooks=books, preset="folder")
    maps = run / "pseudo_labels/all"
    for part in (maps, run / "tables"):
        part.mkdir(parents=True)
    rows = ["image,labels"]
    for k in range(photos):
        Image.fromarray(picture(k, (90, 120))).save(folder / f"photo {k}.jpg")
        rows.append(f"photo {k}.jpg,{'dog;<cat>' if k % 2 else 'dog'}")
        label = np.zeros((90, 120), np.uint8)
        label[20:60, 30:80] = 0 if k == 3 else 2
        label[:10, :10] = 0 if k in (3, 5) else 1
        if k != 4:
            Image.fromarray(label).save(maps / f"photo {k}.png")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    legend = "label,class,colour\n0,background,#000000\n1,<cat>,#800000\n2,dog,#008000\n"
    (maps / "classes.csv").write_text(legend)
    (run / "tables/seeds.csv").write_text("task,method,split,images,miou\n")
    info = json.loads((run / "run.json").read_text())
    info["skipped"] = {"photo 4": "masks: no readable image"}
    (run / "run.json").write_text(json.dumps(info))
    return run


def picture(k, size=(200, 900), noise=20):
    "A noisy ramp of colours, (H, W, 3) uint8."
    rng = np.random.default_rng(k)
    y, x = np.mgrid[: size[0], : size[1]]
    ramp = np.stack([x % 256, y % 256, (x + y) % 256], 2)
    return np.clip(ramp + rng.normal(0, noise, (*size, 3)), 0, 255).astype(np.uint8)
