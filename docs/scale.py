"""The tables of docs/scale.md from measured seconds: `python docs/scale.py` writes them.

Measured figures: `docs/speed.csv`, which `make bench` measures (give another with --speed).
Everything else is a constant below, with its source."""

import argparse
import csv
from pathlib import Path

DOCS = Path(__file__).parent
START = "<!-- tables: written by docs/scale.py -->"
END = "<!-- end of tables -->"

# public figures: value, what it is, where it is from
DATASHEET = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
PUBLIC = dict(
    sam_encoder=(
        0.15,
        "s an image, SAM's ViT-H encoder on one A100",
        "https://segment-anything.com (questions and answers)",
    ),
    sam_generator=(
        5.6,
        "s an image, official automatic masks, 1024 prompts, RTX 3090",
        "https://github.com/facebookresearch/segment-anything/issues/61",
    ),
    a100_peak=(19.5e12, "operations a second, A100, float32", DATASHEET),
    dollars=(
        1.48,
        "dollars an hour, one A100, on demand at Lambda, as listed in 2026",
        "https://deploybase.ai/articles/gpu-cloud-cost-comparison",
    ),
)
# assumptions: ours, to be changed at will
SHARE_OF_PEAK = 0.4  # of the float32 peak that a ViT reaches
CROPS = 5  # the paper's masks: one crop layer, half the points a side in crops
PROMPTS = 1024 + 4 * 256
ENCODER_OPERATIONS = 2 * 86e6 * 714 + 12 * 4 * 714**2 * 768  # ViT-B/16, 368x496
PNG_BYTES = 4_000  # one palette PNG of a label map
JOBS = [  # images; iterations of the two tasks, batch 16
    ("VOC, train_aug", 10_582, 1_800, 17_000),
    ("COCO 2014, train", 82_783, 20_500, 75_000),
    ("10 million images", 10_000_000, 20_500, 75_000),
]
FORMS = {  # what each fast form does
    "fast.image": "only the attention that is asked for; kernels for frozen weights",
    "fast.text": "no token behind the end, the shared beginning once",
    "fast.cam": "the gradient by hand, all classes at once",
    "fast.linear_cam": "all CAMs of a picture as one matrix, known beforehand",
    "fast.decoder": "SAM's decoder without repeating the image",
    "fast.runs": "means, filter and painting on run lengths",
}


def read_rows(path: Path) -> list:
    "Rows of speed.csv."
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finder(rows: list, path="speed.csv"):
    "Function (start of a row's name) -> (published, ours)."

    def find(name):
        for row in rows:
            if row["work"].startswith(name):
                return float(row["published_seconds"]), float(row["our_seconds"])
        raise ValueError(f"{path} has no row {name!r}: run make bench")

    return find


def seconds_an_image(find) -> tuple[dict, float]:
    "Seconds an image on one A100 of every stage: {stage: (published, ours)}, GPU against core."
    encoder = ENCODER_OPERATIONS / (SHARE_OF_PEAK * PUBLIC["a100_peak"][0])
    faster = find("the same against the encoder")[0] / encoder  # on the same network
    generator = find("mask generation beyond the encoder, 16 points a side, 375x500")
    prompts = (PUBLIC["sam_generator"][0] - PUBLIC["sam_encoder"][0]) * PROMPTS / 1024
    cam = find("CAM + CAA")
    seed = [a + b for a, b in zip(find("rock-sand-water"), find("SAMS"))]
    stages = {
        "masks: SAM's encoder, 5 crops": (CROPS * PUBLIC["sam_encoder"][0],) * 2,
        "masks: 2048 prompts": (prompts, prompts * generator[1] / generator[0]),
        "CAM + CAA, both tasks": tuple(2 * x / faster for x in cam),
        "filter and SAMS, both tasks (CPU)": tuple(2 * x for x in seed),
    }
    return stages, faster


def training_hours(find, faster: float, classification: int, segmentation: int) -> tuple:
    "GPU-hours of both trainings, published way and ours; a batch of 16 is four measured ones."
    first = find("classification step")
    second = find("CAM activation step, the same sizes, a context")
    seconds = [4 * (classification * a + segmentation * b) for a, b in zip(first, second)]
    return tuple(s / faster / 3600 for s in seconds)


def human(n: float, units) -> str:
    "A number with the largest unit that fits."
    for size, unit in units:
        if n >= size:
            return f"{n / size:,.3g} {unit}"
    return f"{n:,.3g}"


def in_bytes(n: float) -> str:
    "Bytes in words."
    return human(n, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")))


def line(*cells) -> str:
    "A row of a Markdown table."
    return f"| {' | '.join(str(c) for c in cells)} |"


def head(*names) -> list:
    "The first two lines of a Markdown table."
    return [line(*names), line(*["---"] * len(names))]


def stage_table(stages: dict, faster: float) -> list:
    "Seconds an image."
    known = ["public figure", "public figure x measured ratio"]
    known += [f"measured on a CPU core / {faster:.0f}", "measured, one CPU core"]
    out = ["**Seconds an image, one A100**", ""]
    out += head("stage", "published way", "here", "how it is known")
    for (name, (a, b)), how in zip(stages.items(), known):
        out.append(line(name, f"{a:.3g}", f"{b:.3g}", how))
    a, b = totals(stages)
    return [*out, line("**sum on the GPU**", f"**{a:.3g}**", f"**{b:.3g}**", "")]


def totals(stages: dict) -> list:
    "Seconds an image on the GPU, published way and ours."
    return [sum(v[k] for name, v in stages.items() if "CPU" not in name) for k in (0, 1)]


def cost_table(find, stages: dict, faster: float) -> list:
    "What a data set costs."
    out = ["**What a data set costs**", ""]
    names = ["", "images", "GPU-hours, published way", "GPU-hours here", "of it training"]
    names += ["dollars here", "days on 8 GPUs", "disk here", "disk with cached attention"]
    out += head(*names)
    cached, stored = (1e6 * x for x in find("disk"))
    for name, n, first, second in JOBS:
        train = training_hours(find, faster, first, second)
        hours = [n * t / 3600 + w for t, w in zip(totals(stages), train)]
        cells = [name, f"{n:,}", f"{hours[0]:,.0f}", f"{hours[1]:,.0f}", f"{train[1]:.1f}"]
        cells += [f"{hours[1] * PUBLIC['dollars'][0]:,.0f}", f"{hours[1] / 8 / 24:.2g}"]
        cells += [in_bytes(n * (x + PNG_BYTES)) for x in (stored, cached)]
        out.append(line(*cells))
    gpu = [name for name in stages if "CPU" not in name]
    share = 100 * sum(stages[name][1] for name in gpu[:2]) / totals(stages)[1]
    seeding = stages["filter and SAMS, both tasks (CPU)"][1]
    text = f"SAM's masks are {share:.0f} % of the GPU's time. The seeding needs {seeding:.3g} s"
    return [*out, "", f"{text} of one CPU core an image, beside the GPU."]


def form_table(rows: list) -> list:
    "What each fast form saves of a user's stage."
    out = ["**What each fast form saves**", ""]
    out += head("form", "what it does", "stage", "plain, s", "fast, s", "saves")
    for row in rows:
        form, _, stage = row["work"].partition(": ")
        if form in FORMS:
            plain, fast = float(row["published_seconds"]), float(row["our_seconds"])
            saved = f"{100 * (1 - fast / plain):.0f} %"
            name = f"`{form}`"
            out.append(line(name, FORMS[form], stage, f"{plain:.3g}", f"{fast:.3g}", saved))
    return out


def public_table() -> list:
    "Figures of others."
    show = lambda v: f"{v / 1e12:g} x 10^12" if v > 1e9 else f"{v:g}"
    link = lambda source: f"<{source}>" if " " not in source else source
    out = ["**Public figures used**", "", *head("figure", "what", "source")]
    return out + [line(show(v), what, link(source)) for v, what, source in PUBLIC.values()]


def tables(rows: list) -> str:
    "The page's tables as Markdown."
    find = finder(rows)
    stages, faster = seconds_an_image(find)
    parts = [stage_table(stages, faster), cost_table(find, stages, faster)]
    parts += [form_table(rows), public_table()]
    return "\n\n".join("\n".join(part) for part in parts)


def main():
    "Write the tables between the page's markers."
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speed", type=Path, default=DOCS / "speed.csv")
    parser.add_argument("--page", type=Path, default=DOCS / "scale.md")
    options = parser.parse_args()
    page = options.page.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    middle = tables(read_rows(options.speed))
    options.page.write_text(f"{before}{START}\n\n{middle}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
