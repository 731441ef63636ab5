"""README.md from index.ipynb (`make readme`), and the results it shows, taken from the last `make reproduce`."""
import json, re, shutil, sys
from pathlib import Path

NBS = Path(__file__).resolve().parent
IMAGES, RUNS = NBS / "images", NBS.parent / "runs"


def markdown_table(rows):
    "Rows of strings, the first is the head -> Markdown."
    head, *body = [" | ".join(map(str, row)) for row in rows]
    return "\n".join(f"| {line} |" for line in [head, " | ".join(["---"] * len(rows[0])), *body])


def results():
    "The tables of the committed results as Markdown, for the index notebook."
    import pandas as pd
    from IPython.display import Markdown
    seeds, models = pd.read_csv(IMAGES / "seeds.csv"), pd.read_csv(IMAGES / "models.csv")
    about = json.loads((IMAGES / "about.json").read_text())
    val = seeds[seeds.split == "val"]
    methods = list(dict.fromkeys(val.method))
    value = lambda task, method: 100 * val[(val.task == task) & (val.method == method)].miou.item()
    cell = lambda task, method: f"{value(task, method):.1f}"
    rows = [["method", "coarse (classification task)", "fine (segmentation task)"]]
    rows += [[NAMES.get(m, m), cell("classification", m), cell("segmentation", m)] for m in methods]
    lines = [f"mIoU in % of the seeds on {int(val.images.iloc[0])} held-out drawn pictures (`val`), image-level labels given; preset `{about['preset']}`, seed {about['seed']}, commit "
             f"`{about['commit'][:10]}`, {about['seconds']:.0f} s for all benchmarks on {about['cores']} cores{about.get('note', '')}.", "",
             markdown_table(rows), "", f"Fine seeds against coarse seeds (SAMS): {value('segmentation', 'sams') - value('classification', 'sams'):+.1f} points. The claims of the paper, each with "
             "a 95 % interval and whether it holds here, are on the page and in `tables/claims.csv`; what prompt learning did at each learning rate is in `tables/prompt_learning.csv`.", "", "The same raw CAMs refined in different ways, and what a network learns from each kind of label (a segmentation network on the frozen CLIP's tokens, trained on the same pictures):", "",
             refined(), "", "`refiners.ipynb` tries fewer background powers, so its raw CAM is not quite the one above. The network's frozen encoder is the limit once the labels are good: "
             "a few tenths between SAMS and true masks in the last column say nothing.", "", "The frozen models on the same pictures, and what they should reach:", "",
             markdown_table([["model", "measure", "value", "target"]] + [[r.model, r.measure, f"{r.value:.3f}", "" if pd.isna(r.target) else f"{r.target:.2f}"] for r in models.itertuples()])]
    return Markdown("\n".join(lines))


def refined():
    "Refiners on raw CAMs beside what a network learns from the labels, as Markdown."
    import pandas as pd
    refiners, second = pd.read_csv(IMAGES / "refiners.csv"), pd.read_csv(IMAGES / "segmentation.csv").set_index("method")
    taught = {"cam": "raw CAM", "sams": "SAMS coarse"}
    rows = [["refiner", "mIoU %", "boundary IoU %", "seconds an image", "network trained on it, mIoU %"]]
    for r in refiners[refiners.maps == "cam"].itertuples():
        rows.append([REFINERS.get(r.method, r.method), f"{100 * r.miou:.1f}", f"{100 * r.boundary_iou:.1f}", f"{r.seconds_per_image:.3f}", f"{100 * second.miou[taught[r.method]]:.1f}" if r.method in taught else ""])
    for name, text in (("CRF", "CAA, then dense CRF"), ("SAMS fine", "fine seeds (SAMS)"), ("truth", "true masks")): rows.append([text, "", "", "", f"{100 * second.miou[name]:.1f}"])
    return markdown_table(rows)


REFINERS = dict(cam="none", crf_clip_es="dense CRF (CLIP-ES)", crf_deeplab="dense CRF (DeepLab)", crf_psa="dense CRF (PSA)", affinitynet="AffinityNet", pamr="PAMR", sams="SAMS, SAM's masks",
                sams_slic="SAMS, SLIC superpixels", sams_felzenszwalb="SAMS, Felzenszwalb superpixels")
NAMES = dict(cam="CAM", caa="CAM + affinity (CAA)", caa_uniform="the same with uniform attention (control)", crf="CAA + dense CRF", sams="SAMS, SAM's masks",
             sams_felzenszwalb="SAMS, Felzenszwalb superpixels", bound="bound: each mask takes its true class")


def take_results(note="", run=RUNS / "minivoc"):
    "Copy tables and strip of a run beside the index, with what made them; note: what to say beside the time."
    from PIL import Image
    IMAGES.mkdir(exist_ok=True)
    for table in ("seeds", "models", "refiners", "segmentation"): shutil.copy(run / "tables" / f"{table}.csv", IMAGES / f"{table}.csv")
    picture = Image.open(run / "figures" / "strip.png").convert("RGB")
    picture.thumbnail((1400, 1400))
    picture.save(IMAGES / "strip.jpg", quality=82)
    made = json.loads((run / "run.json").read_text())
    about = dict(preset=made["preset"], commit=made["commit"], seed=made["parameters"]["seed"], seconds=sum(n["seconds"] for n in made["notebooks"]), cores=made["machine"]["cores"], note=f" ({note})" if note else "")
    (IMAGES / "about.json").write_text(json.dumps(about, indent=1) + "\n")


def readme():
    "index.ipynb -> text of README.md: links lead into nbs/, hidden code is left out."
    parts = []
    for cell in json.loads((NBS / "index.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown": parts.append(source)
        elif "#| echo: false" not in source: parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if (text := output.get("data", {}).get("text/markdown")): parts.append("".join(text))
            elif (text := output.get("data", {}).get("text/plain")) and "image/jpeg" not in output["data"]: parts.append("```\n" + "".join(text) + "\n```")
    text = "\n\n".join(parts)
    text = re.sub(r'<div [^>]*id="path">.*?</div>', "![From image and labels to pseudo label: every box is a chapter](images/path.svg)", text, flags=re.S)
    text = re.sub(r"\]\((\w+\.ipynb|labs/|images/)", r"](nbs/\1", text)
    return "<!-- made from nbs/index.ipynb by `make readme`; edit that -->\n\n" + text.replace("](../", "](") + "\n"


if __name__ == "__main__":
    if "--take" in sys.argv: take_results(" ".join(sys.argv[2:]))
    else: (NBS.parent / "README.md").write_text(readme(), encoding="utf-8")
