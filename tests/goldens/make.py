"""The vectors of this folder, taken from all of them: `python tests/goldens/make.py FOLDER`.

Numbers are taken as they are; only float32 arrays that half precision holds exactly (the CLIP's
matrices, rounded by the published loader) are stored in half precision. Rewrites the table of the
README.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LIMIT = 3_000_000  # bytes of the whole folder

FILES = """
affinity_a affinitynet_a cam_activation_loss_a clip_model_A contrastive_loss_a
contrastive_loss_all_invalid crf_b evaluation_a gradcam_A_csc0_end_n16_80x112_scale60
gradcam_A_csc0_end_n16_80x112pad gradcam_A_cscmix_end_n4_80x112 masked_softmax
prompts_A_csc0_end_n16 prompts_A_csc0_front_n4 prompts_A_csc0_middle_n5_oddctx
prompts_A_csc1_front_n16_emptybg prompts_A_csc1_middle_n4 prompts_A_cscmix_end_n4
prompts_A_init_a_photo_of_a_end rock_sand_water_a rock_sand_water_edge rock_sand_water_no_level1
rock_sand_water_no_level2 sams_a sams_c_oneclass sams_edge seeds_single
""".split()


def smaller(x: np.ndarray) -> np.ndarray:
    "Half precision where it holds every number exactly, else the array itself."
    if x.dtype != np.float32:
        return x
    half = x.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), x) else x


def write(arrays: dict, path: Path):
    "An npz that np.load reads, packed with LZMA; the same bytes for the same arrays."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, x in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, smaller(x), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), file.getvalue(), zipfile.ZIP_LZMA)


def main(folder: Path):
    rows = []
    for name in FILES:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        write(arrays, HERE / f"{name}.npz")
        rows.append(f"| {name} | {len(arrays)} |")
    size = sum(path.stat().st_size for path in HERE.glob("*.npz"))
    assert size <= LIMIT, f"{size} bytes"
    page = HERE / "README.md"
    head = re.split(r"(?m)^\| file \|", page.read_text(encoding="utf-8"))[0]
    table = "\n".join(["| file | arrays |", "|---|---:|", *rows])
    page.write_text(f"{head}{table}\n", encoding="utf-8")
    print(f"{len(rows)} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
