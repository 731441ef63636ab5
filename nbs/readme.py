"""README.md from index.ipynb, and the results that it shows (`make readme`).

`--take [RUN]` copies tables, strip and record of a full run to where they are committed first."""

import json
import re
import shutil
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parent
ROOT = NBS.parent
IMAGES = NBS / "images"
RESULTS = ROOT / "benchmarks" / "results"
TABLES = ("seeds", "models", "controls", "refiners", "segmentation", "baselines")
TABLES += ("ablations_summary", "prompt_learning", "settings", "claims")
STEPS = [  # task, method, what it is called in the first table
    ("fixed", "sams", 'hand prompt, "a photo of a ..."'),
    ("classification", "sams", "**coarse**: prompts learned from image-level labels"),
    ("segmentation", "sams", "**fine**: prompts learned from the coarse seeds"),
    ("segmentation", "bound", "bound: every mask takes its true class"),
]
REFINERS = dict(
    cam="none (raw CAM)",
    crf_clip_es="dense CRF, settings of CLIP-ES",
    crf_deeplab="dense CRF, settings of DeepLab",
    crf_psa="dense CRF, settings of PSA",
    affinitynet="AffinityNet",
    pamr="PAMR",
    sams="SAMS, SAM's masks",
    sams_slic="SAMS, SLIC superpixels",
    sams_felzenszwalb="SAMS, Felzenszwalb superpixels",
)


def markdown_table(rows: list) -> str:
    "Rows of strings, the first is the head -> Markdown."
    lines = [" | ".join(map(str, row)) for row in rows]
    lines.insert(1, " | ".join(["---"] * len(rows[0])))
    return "\n".join(f"| {line} |" for line in lines)


def table(name: str, preset: str = "minivoc"):
    "A committed table of results."
    import pandas as pd

    return pd.read_csv(RESULTS / preset / f"{name}.csv")


def about(preset: str = "minivoc") -> dict:
    "What made the committed results."
    return json.loads((RESULTS / preset / "about.json").read_text(encoding="utf-8"))


def provenance(images: int, preset: str = "minivoc") -> str:
    "One sentence on where the figures are from."
    made = about(preset)
    return (
        f"mIoU in % on {images} held-out drawn pictures (`val`); preset `{made['preset']}`, seed "
        f"{made['seed']}, commit `{made['commit'][:10]}`, {made['date']}, {made['seconds']:.0f} s "
        f"for {', '.join(made['notebooks'])} on {made['cores']} cores; settings chosen on `tune`."
    )


def steps_of(preset: str) -> tuple:
    "Rows of the first table for a preset, and how many pictures they are about."
    seeds = table("seeds", preset)
    val = seeds[seeds.split == "val"]
    value = lambda task, method: val[(val.task == task) & (val.method == method)].miou
    rows = []
    for task, method, name in STEPS:
        columns = ("cam", "caa", "crf", "sams") if method == "sams" else ("", "", "", "bound")
        cells = [value(task, column) for column in columns]
        rows.append([name, *(f"{100 * c.iloc[0]:.1f}" if len(c) else "" for c in cells)])
    return rows, int(val.images.max())


HEAD = ["prompts", "raw CAM", "after affinity", "affinity and dense CRF", "SAMS"]


def first_table():
    "Hand prompt, coarse, fine and bound, as Markdown for the index."
    from IPython.display import Markdown

    rows, images = steps_of("minivoc")
    return Markdown(f"{markdown_table([HEAD, *rows])}\n\n{provenance(images)}")


def control_table():
    "What nobody learned, and the same steps with a CLIP that knows the names, as Markdown."
    from IPython.display import Markdown

    found = table("controls")
    rows = [["read by", "sentence", "mAP", "raw CAM", "CAM + affinity", "SAMS"]]
    for r in found.itertuples():
        figures = [f"{100 * x:.1f}" for x in (r.mAP, r.cam, r.caa, r.sams)]
        rows.append([f"`{r[1]}`", r.words, *figures])
    known, images = steps_of("miniclip")
    second = f"{markdown_table([HEAD, *known])}\n\n{provenance(images, 'miniclip')}"
    says = "The same method with `miniclip`, which knows the names:"
    return Markdown(f"{markdown_table(rows)}\n\n{says}\n\n{second}")


def refiner_table():
    "What refines the same raw CAMs, as Markdown for the index."
    from IPython.display import Markdown

    found = table("refiners")
    rows = [["refiner of the same *raw* CAMs", "mIoU %", "95 % interval", "seconds an image"]]
    for r in found[found.maps == "cam"].itertuples():
        interval = f"{100 * r.low:.1f} to {100 * r.high:.1f}"
        name = REFINERS.get(r.method, r.method)
        rows.append([name, f"{100 * r.miou:.1f}", interval, f"{r.seconds_per_image:.3f}"])
    return Markdown(markdown_table(rows))


def network_table():
    "What a network learns from each kind of label, as Markdown for the index."
    from IPython.display import Markdown

    found = table("segmentation")
    rows = [["a network taught by", "mIoU of these labels %", "mIoU of the network %", "share"]]
    for r in found.itertuples():
        figures = (f"{100 * r.label_miou:.1f}", f"{100 * r.miou:.1f}", f"{100 * r.share:.0f} %")
        rows.append([r.method, *figures])
    return Markdown(markdown_table(rows))


def claims_in_numbers():
    "How many claims of the paper hold here, and which do not, as Markdown for the index."
    from IPython.display import Markdown

    if not (RESULTS / "minivoc" / "claims.csv").exists():
        return Markdown("The claims of a full run are not committed yet: run `make benchmark`.")
    claims = table("claims")
    counts = claims.verdict.value_counts()
    text = ", ".join(f"{n} {VERDICTS[verdict][n == 1]}" for verdict, n in counts.items())
    head = f"Of {len(claims)} claims that the benchmarks test here, {text}."
    lines = [f"{head} What does not hold:"]
    for c in claims[claims.verdict != "holds"].itertuples():
        lines.append(f"- {c.claim}: {c.verdict}, {c.by_how_much}")
    return Markdown("\n".join([lines[0], "", *lines[1:]]))


FINE = "Fine seeds are better than coarse|Fine seeds teach .* than coarse|segmentation task"


def fine_over_coarse():
    "Every claim that compares the second task with the first, whatever its verdict."
    from IPython.display import Markdown

    if not (RESULTS / "minivoc" / "claims.csv").exists():
        return Markdown("")
    claims = table("claims")
    rows = [["claim", "measured in", "on", "trainings", "gain (95 % interval)", "verdict"]]
    for c in claims[claims.claim.str.contains(FINE)].itertuples():
        where = f"{c.images:.0f} of `{c.split}`"
        rows.append([c.claim, c.figure, where, f"{c.seeds:.0f}", c.by_how_much, c.verdict])
    return Markdown(markdown_table(rows))


VERDICTS = {  # of several claims, of one
    "holds": ("hold", "holds"),
    "opposite": ("turn out the opposite way", "turns out the opposite way"),
    "undecided": ("are undecided", "is undecided"),
    "no effect": ("show no effect", "shows no effect"),
}


def first_rows(strip, most: int = 3):
    "The first rows of a strip of pictures (a PIL image) with the line of titles above them."
    import numpy as np

    filled = np.pad((np.asarray(strip.convert("L")) < 240).any(1), 1).astype(int)
    starts, ends = np.flatnonzero(np.diff(filled) > 0), np.flatnonzero(np.diff(filled) < 0)
    rows = ends[ends - starts > strip.width / 20]  # a line of titles is lower
    return strip.crop((0, 0, strip.width, int(rows[most - 1]) + 2)) if len(rows) > most else strip


def take_results(run: Path):
    "Copy tables (and the strip of minivoc) to where they are committed, with what made them."
    made = json.loads((run / "run.json").read_text(encoding="utf-8"))
    folder = RESULTS / made["preset"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if (run / "tables" / f"{name}.csv").exists():
            shutil.copy(run / "tables" / f"{name}.csv", folder / f"{name}.csv")
    if made["preset"] == "minivoc":
        take_strip(run / "figures" / "strip.png")
    earlier = any(n["reused"] for n in made["notebooks"])  # then the last call is not all of it
    seconds = sum(n["seconds"] for n in made["notebooks"]) if earlier else made["seconds"]
    record = dict(
        preset=made["preset"],
        commit=made["commit"],
        date=made["started"][:10],
        seed=made["parameters"]["seed"],
        seconds=round(seconds, 1),
        notebooks=[n["name"] for n in made["notebooks"]],
        cores=made["machine"]["cores"],
        command=re.sub(r" --(cache|out) \S+", "", made.get("command", "")),
    )
    (folder / "about.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def take_strip(path: Path):
    "The strip of a run, small enough for the site, and its first rows for the first page."
    from PIL import Image

    strip = Image.open(path).convert("RGB")
    for name, picture in (("strip", strip), ("first_rows", first_rows(strip))):
        picture.thumbnail((1400, 1400))
        picture.save(IMAGES / f"{name}.jpg", quality=82)


def shown(output: dict) -> str | None:
    "An output of a cell as Markdown, if it has words."
    data = output.get("data", {})
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "text/plain" in data and not any(kind.startswith("image/") for kind in data):
        return "```\n" + "".join(data["text/plain"]) + "\n```"
    return None


def parts_of(cell: dict) -> list[str]:
    "A cell of the index as pieces of the README; hidden code is left out."
    source = "".join(cell["source"])
    outputs = [text for o in cell.get("outputs", []) if (text := shown(o))]
    if cell["cell_type"] == "markdown":
        return [source]
    code = [] if "#| echo: false" in source else [f"```python\n{source}\n```"]
    return code + outputs


def readme() -> str:
    "index.ipynb -> text of README.md: its links lead into nbs/."
    cells = json.loads((NBS / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(part for cell in cells for part in parts_of(cell))
    picture = "![From image and labels to pseudo label: every box is a chapter](images/path.svg)"
    text = re.sub(r'<div [^>]*id="path">.*?</div>', picture, text, flags=re.S)
    text = re.sub(r"\]\((?!\.\./|https?:|#|/)", "](nbs/", text)
    note = "<!-- made from nbs/index.ipynb by `make readme`; edit that -->"
    return f"{note}\n\n{text.replace('](../', '](')}\n"


if __name__ == "__main__":
    if "--take" in sys.argv:
        take_results(Path((*sys.argv[2:], ROOT / "runs" / "minivoc")[0]))
    else:
        (ROOT / "README.md").write_text(readme(), encoding="utf-8")
