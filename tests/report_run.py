"""A made-up run folder for the tests of the page; none of its numbers is a result."""
import json
import numpy as np
from PIL import Image

SEEDS = """task,method,split,images,miou,seconds_per_image
classification,cam,train,60,0.5012,0.004
classification,cam,val,40,0.5123,0.0041
classification,caa,val,40,0.5374,0.005
classification,caa_uniform,val,40,0.4981,0.005
classification,crf,val,40,0.5612,0.031
classification,sams,val,40,0.6345,0.152
classification,sams_felzenszwalb,val,40,0.6501,0.083
classification,bound,val,40,0.8711,0.152
segmentation,cam,val,40,0.5483,0.004
segmentation,caa,val,40,0.5661,0.005
segmentation,crf,val,40,0.6023,0.031
segmentation,sams,val,40,0.6614,0.152
"""
MODELS = """model,measure,value,target
clip,"zero-shot multi-label mAP, val",0.962,0.95
sam,"mean best IoU per object, val",0.713,0.75
sam,masks an image,38.25,
"""
CLAIMS = """claim,expected,found,holds,comment
SAMS beats CAA in mIoU,> 0 points,+9.7 points,True,
The filter matters for mIoU,0.021,-0.003,False,<script>alert('comment')</script>
Affinity helps,better,slightly better,partly,
SAMS is faster,,,,not measured here
"""
PUBLISHED = """method,what,split,miou,source
CLIP-ES,CAM,train,70.8,authors' repository
"""
PER_CLASS = """class,iou,recall
<b>aeroplane</b> & co,0.5,0.75
bicycle,,0.25
none,0.125,1.0
"""


def make_run(root, parts=('tables', 'figures', 'notebooks'), pictures=2):
    root.mkdir(parents=True, exist_ok=True)
    info = dict(preset='toy <preset>', commit='0123456789abcdef', dirty=True, started='2026-01-31T12:00:00', seconds=312.4, command='fmwsss reproduce toy',
                seeds=[0, 1], parameters=dict(n_ctx=16, caa=dict(power=2)), versions=dict(python='3.11'), machine=dict(cores=2),
                stages=[dict(stage='sams', images=40, computed=30, reused=10, seconds=6.1)], notes=['A note & more.'],
                notebooks=[dict(name='seeds', seconds=20.5, ok=True), dict(name='refiners', seconds=1.5, ok=False)])
    (root / 'run.json').write_text(json.dumps(info))
    for part in parts: (root / part).mkdir()
    if 'tables' in parts:
        for name, text in dict(seeds=SEEDS, models=MODELS, claims=CLAIMS, published=PUBLISHED, per_class=PER_CLASS).items():
            (root / f'tables/{name}.csv').write_text(text)
        (root / 'tables/settings.csv').write_text('setting,value,chosen_on\nbackground power,2,tune\n')
    if 'figures' in parts:
        for k in range(pictures): Image.fromarray(picture(k)).save(root / f'figures/strip_{k}.png')
        (root / 'figures/strip_0.txt').write_text('A "quoted" <caption>.')
        (root / 'figures/bars.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100"><rect width="90" height="50"/></svg>')
    if 'notebooks' in parts:
        for name in ('seeds', 'refiners'): (root / f'notebooks/{name}.ipynb').write_text('{}')
    return root


def picture(k, size=(200, 900), noise=20):
    rng = np.random.default_rng(k)
    y, x = np.mgrid[:size[0], :size[1]]
    return np.clip(np.stack([x % 256, y % 256, (x + y) % 256], 2) + rng.normal(0, noise, (*size, 3)), 0, 255).astype(np.uint8)
