"""`Study`: train, choose, seed and score; the same numbers twice; one photo never ends a run."""

import numpy as np
import pytest
import torch
from small import QUICK_STUDY, drawn_list, quick_study

from fmwsss.data.in_python import ListDataset
from fmwsss.engine.keys import code_digest, reached
from fmwsss.engine.stages import StageFailed
from fmwsss.fast.text import PromptLearner
from fmwsss.files.errors import SettingsError
from fmwsss.method.evaluation import confusion
from fmwsss.study import stages
from fmwsss.study.pseudo_labels import pseudo_labels
from fmwsss.study.statistics import miou
from fmwsss.study.study import VIEWS, from_seed
from fmwsss.study.tasks import LinearViews
from fmwsss.study.ways import Way


def label_maps(study, prompts, way, part="val"):
    store = study.seeds(prompts, way, part)
    return [from_seed(store, i) for i in study.data[part].ids]


def test_the_whole_method_and_the_same_numbers_from_the_cache(tmp_path):
    study = quick_study(tmp_path)
    found = study.coarse_to_fine()
    assert found.method == "sams" and {"cam", "caa", "sams"} <= set(found.fine)
    first = label_maps(study, found.fine_prompts, found.fine["sams"])
    computed = [r for r in study.run.records if r["computed"]]
    assert {"masks_felzenszwalb", "cams", "seeds"} <= {r["stage"] for r in computed}
    again = quick_study(tmp_path)
    found = again.coarse_to_fine()
    second = label_maps(again, found.fine_prompts, found.fine["sams"])
    assert all(map(np.array_equal, first, second))
    assert not any(r["computed"] for r in again.run.records)


def test_the_score_is_the_mean_iou_of_the_label_maps(tmp_path):
    study = quick_study(tmp_path)
    prompts, way = study.fixed("{}."), Way(settings=dict(power=1))
    data = study.data["val"]
    seeds = label_maps(study, prompts, way)
    by_hand = miou([confusion(s, data.mask(i), 21) for i, s in enumerate(seeds)])
    assert study.score(prompts, [way], "val") == [pytest.approx(by_hand)]


def test_the_best_way_is_the_one_with_the_best_score(tmp_path):
    study = quick_study(tmp_path)
    prompts = study.fixed("{}.")
    ways = [Way(settings=dict(power=p)) for p in (0.2, 1, 4)]
    scores = study.score(prompts, ways)
    assert study.best(prompts, ways) == ways[int(np.argmax(scores))]


def test_another_setting_below_makes_only_what_depends_on_it(tmp_path):
    quick_study(tmp_path).masks("val")
    study = quick_study(tmp_path, seeding=dict(affinity=dict(power=2)))
    study.masks("val")
    assert study.run.records[-1]["computed"] == 0
    study = quick_study(tmp_path, masks=dict(felzenszwalb=dict(sigma=1.5)))
    study.masks("val")
    assert study.run.records[-1]["computed"] == 4


def test_a_level_without_masks_is_noted(tmp_path):
    def notes(root, whole):
        sam = dict(points_per_side=3, crop_layers=0, pred_iou_thresh=0.0, whole_nms_bonus=0.0)
        sam["stability_thresh"] = [0.0, 0.0, whole]
        study = quick_study(tmp_path / root, masks=dict(source=["sam"], sam=sam))
        study.masks("val")
        return [note for note in study.notes if "masks of" in note]

    assert notes("all", 0.0) == []
    (note,) = notes("none", 1.01)
    assert note.startswith("masks of val: none of") and "of 4 photos is a whole" in note
    assert "1.01" in note and "\n" not in note


def test_of_several_learning_rates_the_best_on_tune(tmp_path):
    study = quick_study(tmp_path, classification=dict(training=dict(lr=[1e-3, 0.5])))
    prompts = study.train("classification", study.settings.classification)
    values = {row["learning_rate"]: row["cam_miou"] for row in prompts.tried}
    assert set(values) == {1e-3, 0.5} and values[prompts.lr] == max(values.values())


def test_contexts_of_the_first_task_can_start_the_second(tmp_path):
    study = quick_study(tmp_path, segmentation=dict(prompts=dict(start="classification")))
    found = study.coarse_to_fine(methods=())
    assert found.fine_prompts.contexts.shape == found.coarse_prompts.contexts.shape
    moved = (found.fine_prompts.contexts - found.coarse_prompts.contexts).abs().max()
    assert 0 < moved < 0.5


@pytest.mark.fault
def test_what_cannot_be_learned_is_said_and_fixed_prompts_are_used(tmp_path):
    pictures = [drawn_list().image(i) for i in range(3)]
    dataset = ListDataset(pictures, [["cat"]] * 3)
    study = quick_study(tmp_path, dataset, data=dict(names="own"))
    prompts = study.train("classification", study.settings.classification)
    assert prompts.task == "fixed" and any("only one class" in n for n in study.notes)


def test_pseudo_labels_in_one_call():
    data = drawn_list()
    pictures = [data.image(i) for i in range(4)]
    names = [[data.classes[c] for c in np.flatnonzero(data.labels(i))] for i in range(4)]
    changes = {k: v for k, v in QUICK_STUDY.items() if k != "data"}
    found = pseudo_labels(pictures, names, settings=changes, progress=False)
    classes = sorted({n for row in names for n in row})
    for label, image, row in zip(found, pictures, names):
        assert label.shape == image.shape[:2]
        allowed = {0, *(classes.index(n) + 1 for n in row)}
        assert set(np.unique(label)) <= allowed


# One photo never ends a run


def recursive():
    return recursive()


def out_of_memory():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def fails_with(error):
    def fail():
        raise error

    return fail


FAILURES = dict(
    value=fails_with(ValueError("truncated image")),
    os=fails_with(OSError(5, "Input/output error")),
    memory=fails_with(MemoryError()),
    card=out_of_memory,
    library=fails_with(RuntimeError("a library says no\nin two lines")),
    type=fails_with(TypeError("int is not iterable")),
    index=fails_with(IndexError("index 3 is out of bounds")),
    division=fails_with(ZeroDivisionError("division by zero")),
    stop=fails_with(StopIteration()),
    depth=recursive,
)
GOOD = 2


class Counted(ListDataset):
    "Pictures of which each fails in its own way where a test says so."

    fail_in = ""

    def fail(self, where, i):
        kinds = list(FAILURES.values())
        number = int(self.ids[i])
        if self.fail_in == where and number >= GOOD:
            kinds[number - GOOD]()

    def image(self, i):
        self.fail("image", i)
        return super().image(i)

    def labels(self, i):
        self.fail("labels", i)
        return super().labels(i)

    def mask(self, i):
        self.fail("mask", i)
        return super().mask(i)


def whole_run(study):
    prompts = study.fixed("{}.")
    way = study.choose(prompts, ("sams",))["sams"]
    return study.seeds(prompts, way, "val")


@pytest.mark.fault
@pytest.mark.parametrize("where", ["image", "mask", "labels"])
def test_an_image_that_cannot_be_read_costs_only_itself(tmp_path, where, monkeypatch):
    data = drawn_list(GOOD + len(FAILURES), Counted)
    monkeypatch.setattr(data, "fail_in", where)
    study = quick_study(tmp_path, data)
    store = whole_run(study)
    assert [i for i in data.ids if store.has(i)] == data.ids[:GOOD]
    check_reports(study, data, "readable")


@pytest.mark.fault
@pytest.mark.parametrize("stage", ["masks_felzenszwalb", "cams", "seeds"])
def test_an_image_that_fails_in_a_stage_costs_only_itself(tmp_path, stage, monkeypatch):
    data = drawn_list(GOOD + len(FAILURES), Counted)
    place = dict(masks_felzenszwalb="masks_for", cams="cams_of_group", seeds="Reader")[stage]
    original = getattr(stages, place)
    kinds = list(FAILURES.values())
    images = {data.image(i).tobytes(): i for i in range(len(data))}

    def fail(number):
        if number >= GOOD:
            kinds[number - GOOD]()

    def masks(source, image, name):
        fail(int(name))
        return original(source, image, name)

    def cams(clip, text, pixels, labels, *rest):
        for x in pixels:
            mean, std = torch.tensor(clip.mean), torch.tensor(clip.std)
            back = (x * std[:, None, None] + mean[:, None, None]) * 255
            fail(images[back.round().byte().permute(1, 2, 0).numpy().tobytes()])
        return original(clip, text, pixels, labels, *rest)

    def reader(dataset, *rest):
        fail(int(dataset.ids[rest[-1]]))
        return original(dataset, *rest)

    new = dict(masks_for=masks, cams_of_group=cams, Reader=reader)[place]
    monkeypatch.setattr(stages, place, new)
    study = quick_study(tmp_path, data)
    prompts = study.fixed("{}.")
    way = Way("sams", "caa", 0.4, "felzenszwalb", dict(power=1))
    store = study.seeds(prompts, way, "val")
    assert [i for i in data.ids if store.has(i)] == data.ids[:GOOD]
    check_reports(study, data, stage)


def check_reports(study, data, stage):
    "Each image once, with stage and one line; what the code is to blame for is told apart."
    assert list(study.run.failures) == data.ids[GOOD:]
    for failure in study.run.failures.values():
        assert failure.stage == stage and failure.reason and "\n" not in failure.reason
    blamed = {i for i, f in study.run.failures.items() if f.program}
    kinds = dict(zip(FAILURES, data.ids[GOOD:]))
    assert blamed == {kinds["type"], kinds["index"]}


@pytest.mark.fault
def test_a_stage_whose_every_image_fails_is_an_error(tmp_path):
    data = drawn_list(3)
    study = quick_study(tmp_path, data)
    way = Way("threshold", settings=dict(power="high"))
    with pytest.raises((StageFailed, SettingsError)) as error:
        study.seeds(study.fixed("{}."), way, "val")
    assert "\n" not in str(error.value)


@pytest.mark.fault
def test_training_uses_the_images_that_have_seeds(tmp_path):
    data = drawn_list(6, Counted)
    data.fail_in = "image"
    study = quick_study(tmp_path, data)
    found = study.coarse_to_fine(methods=())
    assert len(study.data["train"]) == GOOD and len(found.fine_prompts.history) == 2


class OneStamp(ListDataset):
    "A data set of somebody's own that says the same of every picture."

    def image_stamp(self, i):
        return "0"


def test_what_is_remembered_of_a_picture_is_not_told_of_another(tmp_path):
    "The memory of the image tower knows pictures by their pixels, whatever the data set says."
    data = drawn_list(16, OneStamp)  # two batches
    found = []
    for memory, name in ((stages.Memory(), "with"), (stages.Memory(limit=0), "without")):
        study = quick_study(tmp_path / name, data)
        study.memory = memory
        store = study.cams(study.fixed("{}."), "val", 0.4)
        found.append([store.load(i) for i in data.ids])
    for a, b in zip(*found, strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in b)


def test_a_memory_that_is_full_keeps_what_it_has():
    memory = stages.Memory(limit=1000)
    make = lambda: np.zeros(100)
    first = memory.timed(("a",), make)[0]
    assert memory.timed(("b",), make)[0] is not memory.timed(("b",), make)[0]
    assert memory.timed(("a",), make)[0] is first and memory.room == 200


def test_prompts_are_keyed_on_what_makes_their_views():
    "A mended form of the views trains anew, instead of taking prompts of the old one."
    keys = {code_digest(PromptLearner, *parts) for parts in VIEWS.values()}
    assert len(keys) == len(VIEWS) == 3
    reached_by = reached([(LinearViews.__module__, "LinearViews")])[0]
    assert ("fmwsss.fast.linear_cam", "cam_matrices") in reached_by


def test_finished_prompts_are_read_without_writing(tmp_path, monkeypatch):
    "A cache that others share may be one in which nothing can be written, not even a lock."
    study = quick_study(tmp_path)
    task = study.settings.classification
    first = study.train("classification", task)

    def refused(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(stages, "FileLock", refused)
    again = quick_study(tmp_path).train("classification", task)
    assert torch.equal(first.text, again.text)
