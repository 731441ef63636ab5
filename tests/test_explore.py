"""The explorer without a browser: the state answers every knob, the page follows it, and says what is wrong."""
import io
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fmwsss.explore import App, Explorer, Knobs, Picture, controls, explain_mask, from_dataset, iou_table, jpeg, open_upload, panels, photo, voc_picture
from fmwsss.evaluation import confusion, scores
from fmwsss.superpixels import Masks
from small import small_clip, small_sam

SOURCES = dict(source='felzenszwalb')


@pytest.fixture
def explorer():
    "Small random models and two noisy pictures, the second without truth."
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 48), np.uint8)
    truth[10:40, 8:30], truth[40:60, 20:44], truth[0] = 8, 12, 255
    image = np.where(truth[..., None] == 8, [200, 60, 40], np.where(truth[..., None] == 12, [60, 80, 200], [120, 160, 90])) + rng.integers(0, 20, (64, 48, 3))
    pictures = [voc_picture('two', image.astype(np.uint8), truth), photo(image.astype(np.uint8), ['cat'], 'mine')]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ready = Explorer(pictures, small_clip(), small_sam(), background=['wall', 'sky'])
        ready.move(**SOURCES)
        yield ready


def test_a_view_is_the_methods_own_result(explorer):
    view = explorer.move(method='pixels', background=2.0)
    assert view.seed.shape == (64, 48) and set(np.unique(view.seed)) <= {0, 8, 12} and view.maps.shape == (2, 64, 48)
    expected = scores(confusion(view.seed, view.picture.truth, 21))['iou'][[0, 8, 12]]
    np.testing.assert_array_equal(list(view.iou.values()), expected)
    assert view.miou == pytest.approx(expected.mean()) and list(view.iou) == ['background', 'cat', 'dog']


@pytest.mark.parametrize('changes', [dict(maps='cam'), dict(maps='uniform'), dict(rounds=3), dict(power=3), dict(box=.8), dict(source='slic'), dict(levels=(0,)),
                                     dict(filter=.3), dict(order='-area, confidence'), dict(method='pixels'), dict(background=8.0), dict(shown=1)])
def test_every_knob_changes_something(explorer, changes):
    explorer.move(filter=1.05)
    before, after = explorer.view(), explorer.move(**changes)
    same = np.array_equal(before.maps, after.maps) and np.array_equal(before.seed, after.seed) and len(before.masks) == len(after.masks)
    pictures = [panels(v) for v in (before, after)]
    assert not same or any(not np.array_equal(pictures[0][k], pictures[1][k]) for k in pictures[0])
    assert explorer.knobs == after.knobs != before.knobs


def test_heavy_work_is_done_once(explorer, monkeypatch):
    explorer.prepare('felzenszwalb')
    def no_more(*_, **__): raise AssertionError('computed again')
    for name in ('class_maps', 'felzenszwalb_masks'): monkeypatch.setattr(f'fmwsss.explore.{name}', no_more)
    for changes in (dict(background=2.0), dict(box=.2), dict(picture=1), dict(picture=0, levels=(1, 2))): explorer.move(**changes)


@pytest.mark.parametrize('changes, words', [(dict(picture=2), 'no picture 2'), (dict(shown=2), 'no class 2'), (dict(mask=10**6), 'take part'), (dict(source='x'), 'source must be'),
                                            (dict(maps='x'), 'maps must be'), (dict(method='x'), 'method must be'), (dict(colour=1), "no knob 'colour'")])
def test_a_wrong_position_is_refused_and_nothing_moves(explorer, changes, words):
    before = explorer.knobs
    with pytest.raises(ValueError, match=words): explorer.move(**changes)
    assert explorer.knobs == before


def test_a_picture_needs_a_class():
    with pytest.raises(ValueError, match='at least one class'): photo(np.zeros((8, 8, 3), np.uint8), [' '])
    with pytest.raises(ValueError, match='1 prompts'): Picture('a', np.zeros((8, 8, 3), np.uint8), ['cat', 'dog'], ['cat'])
    with pytest.raises(ValueError, match='no picture'): Explorer([], small_clip(), small_sam())


def test_clicks_choose_the_top_mask_and_then_the_one_below(explorer):
    explorer.move(filter=1.05)
    top = explorer.view().masks.paint(explorer.view().order)[20, 15]
    first, second = explorer.click(15, 20), explorer.click(15, 20)
    assert first.knobs.mask == top != second.knobs.mask
    order = list(first.order)
    assert order.index(second.knobs.mask) < order.index(top) and second.masks[[second.knobs.mask]].dense()[0, 20, 15]
    assert 'it becomes' in explain_mask(first) and 'In truth' in explain_mask(first)


def test_no_mask_at_all_is_background_and_a_click_chooses_none(explorer):
    explorer._kept['masks', 0, 'sam'] = Masks.from_dense(np.zeros((0, 64, 48), bool))
    view = explorer.move(source='sam')
    assert not view.seed.any() and explorer.click(3, 3).knobs.mask == -1 and set(panels(view)) == {'picture', 'map', 'masks', 'seed', 'truth'}


def test_panels_of_an_own_photo_have_no_truth(explorer):
    view = explorer.move(picture=1)
    assert 'truth' not in panels(view) and view.iou == {} and np.isnan(view.miou) and 'No truth' in iou_table(view)
    shown = panels(view)['seed']
    assert cv2.imdecode(np.frombuffer(jpeg(shown), np.uint8), 1).shape == shown.shape


def test_controls_are_the_knobs(): assert set(controls()) == set(Knobs.__dataclass_fields__)


def test_page_follows_and_reports(explorer):
    app = App(explorer, prefetch=False)
    before = app.panels['seed'].data
    app.controls['background'].value = 8.0
    assert explorer.knobs.background == 8.0 and app.panels['seed'].data != before
    app.panels['masks'].clicked = [.3, .3, 1]
    assert explorer.knobs.mask == app.controls['mask'].value >= 0 and 'Mask' in app.message.value
    app.controls['picture'].value = 1
    assert app.controls['shown'].options == (('cat', 0),) and app.panels['truth'].layout.visibility == 'hidden'
    app.controls['levels'].value = ()
    assert '0 masks take part' in app.message.value and not explorer.view().seed.any()


def test_page_takes_a_photo(explorer):
    app, file = App(explorer, prefetch=False), io.BytesIO()
    Image.new('RGB', (40, 30), 'red').save(file, 'PNG')
    upload = lambda content: dict(name='red.png', type='image/png', size=len(content), content=memoryview(content), last_modified=None)
    app.receive(dict(new=(upload(file.getvalue()),)))
    assert 'First write' in app.message.value and len(explorer.pictures) == 2
    app.classes.value = 'cat, dog'
    app.receive(dict(new=(upload(b'no image'),)))
    assert 'red.png is no image' in app.message.value and len(explorer.pictures) == 2
    app.receive(dict(new=(upload(file.getvalue()),)))
    assert explorer.pictures[explorer.knobs.picture].classes == ['cat', 'dog']


def test_a_data_set_can_be_explored(explorer):
    class Two:
        ids, classes = ['a', 'b'], ['ant', 'bee']
        image = lambda self, i: np.full((16, 16, 3), 90, np.uint8)
        labels = lambda self, i: np.array([i, 1], np.uint8)
        mask = lambda self, i: None
    first, second = from_dataset(Two(), [0, 1], ['ant insect', 'bee insect'])
    assert (first.classes, first.prompts, first.values) == (['bee'], ['bee insect'], [2]) and second.values == [1, 2]


def test_no_committed_notebook_holds_a_dead_widget():
    for path in (Path(__file__).parent.parent / 'nbs').rglob('*.ipynb'):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        dead = [o for c in cells for o in c.get('outputs', []) if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
        assert not dead, f'{path.name}: clear the output of the cell that shows widgets, readers without a kernel see an error there'
