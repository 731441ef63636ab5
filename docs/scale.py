"""The tables of docs/scale.md from measured seconds: `python docs/scale.py` writes them between the page's markers.

Measured figures: `docs/speed.csv`, a copy of what `make bench` writes (give another with --speed). Everything else is a constant below, with its source."""
import argparse
import csv
from pathlib import Path

DOCS = Path(__file__).parent
START, END = "<!-- tables: written by docs/scale.py -->", "<!-- end of tables -->"

# public figures: value, what it is, where it is from
PUBLIC = dict(
    sam_encoder=(0.15, "s an image, SAM's ViT-H encoder on one A100", "https://segment-anything.com (questions and answers)"),
    sam_generator=(5.6, "s an image, official automatic masks, 1024 prompts, RTX 3090", "https://github.com/facebookresearch/segment-anything/issues/61"),
    a100_peak=(19.5e12, "operations a second, A100, float32", "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"),
    dollars=(1.48, "dollars an hour, one A100, on demand at Lambda, as listed in 2026", "https://deploybase.ai/articles/gpu-cloud-cost-comparison"),
)
# assumptions: ours, to be changed at will
SHARE_OF_PEAK = 0.4                  # of the float32 peak that a ViT reaches
CROPS, PROMPTS = 5, 1024 + 4 * 256   # the paper's masks: one crop layer, half the points a side in crops
ENCODER_OPERATIONS = 2 * 86e6 * 714 + 12 * 4 * 714**2 * 768          # ViT-B/16 at 368x496: matrix products, attention
PNG_BYTES = 4_000                    # one palette PNG of a label map
JOBS = [("VOC, train_aug", 10_582, 1_800, 17_000), ("COCO 2014, train", 82_783, 20_500, 75_000), ("10 million images", 10_000_000, 20_500, 75_000)]   # images; iterations of the two tasks, batch 16


def read(path):
    "speed.csv -> function (start of a row's name) -> (published, ours)."
    rows = list(csv.DictReader(open(path, newline="", encoding="utf-8")))
    def find(name):
        for row in rows:
            if row["work"].startswith(name): return float(row["published_seconds"]), float(row["our_seconds"])
        raise ValueError(f"{path} has no row {name!r}: run make bench")
    return find


def seconds_an_image(find):
    "Seconds an image on one A100 of every stage, published way and ours: {stage: (published, ours)}."
    encoder = ENCODER_OPERATIONS / (SHARE_OF_PEAK * PUBLIC["a100_peak"][0])
    faster = find("the same against the encoder")[0] / encoder                    # GPU against one CPU core, on the same network
    published_generator, our_generator = find("mask generation beyond the encoder, 16 points a side, 375x500")
    prompts = (PUBLIC["sam_generator"][0] - PUBLIC["sam_encoder"][0]) * PROMPTS / 1024
    cam = find("CAM + CAA")
    seed = [a + b for a, b in zip(find("rock-sand-water"), find("SAMS"))]
    stages = {"masks: SAM's encoder, 5 crops": (CROPS * PUBLIC["sam_encoder"][0],) * 2, "masks: 2048 prompts": (prompts, prompts * our_generator / published_generator),
              "CAM + CAA, both tasks": (2 * cam[0] / faster, 2 * cam[1] / faster), "filter and SAMS, both tasks (CPU)": (2 * seed[0], 2 * seed[1])}
    return stages, faster


def training_hours(find, faster, classification, segmentation):
    "GPU-hours of both trainings, published way and ours; a batch of 16 is four of the measured ones."
    steps = [4 * n * find(name)[k] / faster / 3600 for k in (0, 1) for name, n in (("classification step", classification), ("CAM activation step, the same sizes, a context", segmentation))]
    return sum(steps[:2]), sum(steps[2:])


def human(n, units):
    for size, unit in units:
        if n >= size: return f"{n / size:,.3g} {unit}"
    return f"{n:,.3g}"


def bytes_text(n): return human(n, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")))


def tables(find):
    "The page's tables as Markdown."
    stages, faster = seconds_an_image(find)
    gpu = [k for k in stages if "CPU" not in k]
    out = ["**Seconds an image, one A100**", "", "| stage | published way | here | how it is known |", "| --- | --- | --- | --- |"]
    known = ["public figure", "public figure x measured ratio", f"measured on a CPU core / {faster:.0f}", "measured, one CPU core"]
    out += [f"| {k} | {a:.3g} | {b:.3g} | {how} |" for (k, (a, b)), how in zip(stages.items(), known)]
    total = [sum(stages[k][w] for k in gpu) for w in (0, 1)]
    out += [f"| **sum on the GPU** | **{total[0]:.3g}** | **{total[1]:.3g}** | |", "", "**What a data set costs**", "",
            "| | images | GPU-hours, published way | GPU-hours here | of it training | dollars here | days on 8 GPUs | disk here | disk with cached attention |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    cached, stored = (1e6 * x for x in find("disk"))
    for name, n, a, b in JOBS:
        train = training_hours(find, faster, a, b)
        hours = [n * t / 3600 + w for t, w in zip(total, train)]
        out.append(f"| {name} | {n:,} | {hours[0]:,.0f} | {hours[1]:,.0f} | {train[1]:.1f} | {hours[1] * PUBLIC['dollars'][0]:,.0f} | {hours[1] / 8 / 24:.2g} | {bytes_text(n * (stored + PNG_BYTES))} | {bytes_text(n * (cached + PNG_BYTES))} |")
    share = sum(stages[k][1] for k in gpu[:2]) / total[1]
    out += ["", f"SAM's masks are {100 * share:.0f} % of the GPU's time. The seeding needs {stages['filter and SAMS, both tasks (CPU)'][1]:.3g} s of one CPU core an image, beside the GPU.", "", "**Public figures used**", "",
            "| figure | what | source |", "| --- | --- | --- |"]
    show = lambda v: f"{v / 1e12:g} x 10^12" if v > 1e9 else f"{v:g}"
    out += [f"| {show(v)} | {what} | {f'<{source}>' if ' ' not in source else source} |" for v, what, source in PUBLIC.values()]
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speed", type=Path, default=DOCS / "speed.csv")
    parser.add_argument("--page", type=Path, default=DOCS / "scale.md")
    options = parser.parse_args()
    page = options.page.read_text(encoding="utf-8")
    before, rest = page.split(START)
    options.page.write_text(f"{before}{START}\n\n{tables(read(options.speed))}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__": main()
