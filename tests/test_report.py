"""The page of a run: structure, escaping, missing parts, size, words that follow from numbers."""
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

from fmwsss.report import build_report, compare_runs, load_run, margin, verdict
from report_run import make_run, picture


class Page(HTMLParser):
    "All elements as (tag, attributes), the text, and whether tags are balanced."
    VOID = {'meta', 'link', 'img', 'br'}

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID: self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('style', 'script'): self.text.append(data)

    def all(self, tag): return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope='module')
def root(tmp_path_factory): return make_run(tmp_path_factory.mktemp('run') / 'toy')


@pytest.fixture(scope='module')
def html(root): return build_report(root).read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def page(html): return Page(html)


@pytest.fixture(scope='module')
def text(page): return ' '.join(' '.join(page.text).split())


def test_structure(page, text):
    assert page.all('html') == [{'lang': 'en'}]
    for landmark in ('header', 'nav', 'main', 'footer', 'h1', 'title'): assert len(page.all(landmark)) == 1, landmark
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    ids = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
    assert len(ids) == len(set(ids))
    for link in page.all('a'):
        if link['href'].startswith('#'): assert link['href'][1:] in ids
    for attrs in (a for _, a in page.elements if 'aria-labelledby' in a): assert attrs['aria-labelledby'] in ids
    assert all(len(image['alt']) > 10 for image in page.all('img')) and len(page.all('img')) == 3
    assert len(page.all('caption')) == len(page.all('table')) >= 9


def test_sortable_markup(page):
    columns = [a for a in page.all('th') if a['scope'] == 'col']
    assert columns and all(a['aria-sort'] == 'none' and a['data-type'] in ('number', 'text') for a in columns)
    assert len(page.all('button')) == len(columns)
    assert len([a for a in page.all('th') if a['scope'] == 'row']) == len(page.all('tr')) - len(page.all('table'))


def test_nothing_is_fetched(html, page):
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html) and 'url(' not in html and '@import' not in html
    assert all(image['src'].startswith('data:image/') for image in page.all('img'))
    assert {a.get('rel') for a in page.all('link')} == {'icon'} and all('src' not in a for a in page.all('script'))
    assert "default-src 'none'" in html


def test_links_point_into_the_run(root, page):
    files = [a['href'] for a in page.all('a') if not a['href'].startswith('#')]
    assert files and all((root / f).is_file() for f in files)
    assert {'notebooks/seeds.ipynb', 'tables/seeds.csv', 'figures/bars.svg'} <= set(files)


def test_every_value_is_there(root, html, text):
    for name, table in load_run(root).tables.items():
        for value in table.to_numpy().ravel():
            if pd.isna(value): continue
            if isinstance(value, (int, float)) and not isinstance(value, bool): assert f'data-sort="{float(value)}"' in html, (name, value)
            elif isinstance(value, str) and name not in ('claims', 'models'): assert ' '.join(value.split()) in text, (name, value)


def test_text_stays_text(html, text):
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert '<b>aeroplane' not in html and '<b>aeroplane</b> & co' in text
    assert 'toy <preset>' in text and 'A "quoted" <caption>.' in text


def test_none_is_a_word_not_a_missing_number(text): assert 'none' in text


def test_words_follow_from_numbers(root, tmp_path, text):
    assert 'The best coarse seeds on val (40 images) come from SAMS with Felzenszwalb masks: mIoU 65.0 %.' in text
    assert 'With coarse seeds, SAMS gains 9.7 points over CAA and 7.3 over dense CRF, and loses 1.6 points against SAMS with Felzenszwalb masks.' in text
    assert 'On val, the fine seeds of SAMS gain 2.7 points over its coarse seeds.' in text
    assert 'Of 2 targets for CLIP and SAM, 1 is met; missed: sam: mean best IoU per object, val (by 3.7 points).' in text
    assert 'Of 4 claims, 1 holds; partly: “Affinity helps”; not holding: “The filter matters for mIoU”; not measured: “SAMS is faster”.' in text
    other = make_run(tmp_path / 'other')
    table = (other / 'tables/seeds.csv').read_text().replace('0.6501', '0.6001')
    (other / 'tables/seeds.csv').write_text(table)
    assert 'The best coarse seeds on val (40 images) come from SAMS: mIoU 63.4 %.' in build_report(other).read_text(encoding='utf-8')


def test_a_loss_is_told_in_whole_words(tmp_path):
    run = make_run(tmp_path / 'lost')
    table = (run / 'tables/seeds.csv').read_text().replace('0.6614', '0.6245')
    (run / 'tables/seeds.csv').write_text(table)
    assert 'the fine seeds of SAMS lose 1.0 points against its coarse seeds.' in build_report(run).read_text(encoding='utf-8')


def test_many_claims_are_counted_not_listed(tmp_path):
    run = make_run(tmp_path / 'many')
    (run / 'tables/claims.csv').write_text('claim,holds\n' + ''.join(f'claim {k},undecided\n' for k in range(5)) + 'sixth,yes\n')
    assert 'Of 6 claims, 1 holds; undecided: 5.' in build_report(run).read_text(encoding='utf-8')


def test_fractions_have_a_unit(tmp_path):
    run = make_run(tmp_path / 'units')
    (run / 'tables/refiners.csv').write_text('method,miou,low,high\nsams,0.7,0.65,0.75\n')
    (run / 'tables/ablations_summary.csv').write_text('variant,miou,delta\nBCE,0.68,-0.0123\n')
    html = build_report(run).read_text(encoding='utf-8')
    assert 'low (%)' in html and re.search(r'data-sort="0.65">65.0', html) and 'delta (points)' in html and re.search(r'data-sort="-0.0123">−1.23', html)


def test_origin_is_a_mark_beside_the_name(tmp_path):
    run = make_run(tmp_path / 'origin')
    (run / 'tables/published.csv').write_text('origin,method,miou\npublished,PSA,61.7\nmeasured,SAMS,60.0\n')
    html = build_report(run).read_text(encoding='utf-8')
    assert re.search(r'PSA <span class="mark">published</span>', html) and re.search(r'SAMS <span class="mark">measured</span>', html) and '>origin<' not in html


def test_verdicts_in_words_and_colour(html):
    for tone, words in (('good', '✓ holds'), ('bad', '✗ does not hold'), ('fair', '≈ partly'), ('none', '– not measured')):
        assert re.search(rf'class="text {tone}[^>]*><span class="pill">{words}', html), words
    assert '−2.4 points' in html                                 # by how much: -0.003 - 0.021


@pytest.mark.parametrize('value,word', [(True, 'holds'), ('yes', 'holds'), (0, 'does not hold'), ('False', 'does not hold'), ('', 'not measured'),
                                        (float('nan'), 'not measured'), ('partly', 'partly'), ('who knows', 'not measured')])
def test_verdict(value, word): assert verdict(value) == word


def test_margin_needs_numbers_of_one_unit():
    assert margin('mIoU', 0.1, 0.15) == '+5.0 points' and margin('time ratio', '< 1', '0.4') == '−0.6'
    assert margin('mIoU', '> 0 points', 'no') == '' and margin('mIoU', '5 points', '0.05') == ''


def test_published_figures_are_marked(html):
    assert re.search(r'CLIP-ES <span class="mark">published</span>', html) and 'expected (published)' in html
    assert html.count('<span class="mark">published</span>') == 1


def test_same_run_same_page(root, html): assert build_report(root).read_text(encoding='utf-8') == html


def test_missing_parts_are_left_out_and_named(tmp_path):
    text = build_report(make_run(tmp_path / 'bare', parts=())).read_text(encoding='utf-8')
    Page(text)
    for name in ('claims', 'seeds', 'models', 'settings'): assert f'tables/{name}.csv is not in the run' in text
    assert 'There are no figures' in text and 'Notebook refiners failed' in text and 'How this run was made' in text


def test_unreadable_parts_do_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / 'broken')
    (run / 'tables/models.csv').write_text('')
    (run / 'figures/strip_1.png').write_bytes(b'no picture')
    text = build_report(run).read_text(encoding='utf-8')
    assert 'tables/models.csv could not be read' in text and 'figures/strip_1.png could not be read' in text and 'figure-strip_0' in text


def test_odd_tables_do_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / 'odd')
    (run / 'tables/seeds.csv').write_text('something,else\n1,2\n')
    (run / 'tables/claims.csv').write_text('claim\n')
    (run / 'tables/models.csv').write_text('model,measure,value,target\n')
    (run / 'tables/empty.csv').write_text('a,b\n')
    Page(build_report(run).read_text(encoding='utf-8'))


@pytest.mark.parametrize('spoil,error,words', [
    (None, FileNotFoundError, 'run folder not found'), ('empty', FileNotFoundError, 'no run.json'),
    ('json', ValueError, 'not valid JSON'), ('list', ValueError, 'no JSON object')])
def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path, spoil, error, words):
    run = tmp_path / 'run'
    if spoil: run.mkdir()
    if spoil in ('json', 'list'): (run / 'run.json').write_text('{' if spoil == 'json' else '[1]')
    with pytest.raises(error, match=words) as raised: build_report(run)
    assert '\n' not in str(raised.value) and str(run) in str(raised.value)


def test_page_stays_small(tmp_path):
    run = make_run(tmp_path / 'large', pictures=0)
    for k in range(12): Image.fromarray(picture(k, (400, 2000), 60)).save(run / f'figures/strip_{k}.png')
    assert sum(f.stat().st_size for f in (run / 'figures').iterdir()) > 15e6
    path = build_report(run)
    assert path.stat().st_size < 6e6 and path.read_text(encoding='utf-8').count('<img') == 13


def test_long_tables_are_cut_and_say_so(tmp_path):
    run = make_run(tmp_path / 'long')
    pd.DataFrame(dict(image=range(5000), miou=0.5)).to_csv(run / 'tables/images.csv', index=False)
    assert 'first 1000 of 5000 rows' in build_report(run).read_text(encoding='utf-8')


def test_failed_notebooks_and_skipped_images_are_named(tmp_path):
    run = make_run(tmp_path / 'run', parts=())
    info = json.loads((run / 'run.json').read_text())
    info['notebooks'][1]['error'], info['skipped'] = 'ValueError: no <weights>', {f'img{k}': 'corrupt' for k in range(7)}
    (run / 'run.json').write_text(json.dumps(info))
    text = build_report(run).read_text(encoding='utf-8')
    assert 'Notebook refiners failed' in text and 'ValueError: no &lt;weights&gt;' in text and '7 images were skipped: img0 (corrupt)' in text


def test_compare(root, tmp_path):
    other = make_run(tmp_path / 'other')
    table = (other / 'tables/seeds.csv').read_text().replace('0.6614', '0.6834').replace('classification,crf,val,40,0.5612,0.031\n', '')
    (other / 'tables/seeds.csv').write_text(table)
    (other / 'tables/published.csv').unlink()
    Image.fromarray(picture(7)).save(other / 'figures/strip_1.png')
    found = compare_runs(root, other, page=tmp_path / 'compare.html').set_index(['table', 'row', 'column'])
    assert found.loc[('seeds', 'segmentation, sams, val', 'miou'), 'difference'] == pytest.approx(0.022)
    assert found.loc[('seeds', 'classification, crf, val', 'miou'), 'b'] is None
    assert found.loc['published']['b'].isna().all()
    text = (tmp_path / 'compare.html').read_text(encoding='utf-8')
    Page(text)
    assert '+2.2' in text and 'A: toy' in text and 'B: other' in text and text.count('<img') == 4 and 'A and B: A &#34;quoted&#34;' in text
    same = compare_runs(root, root)
    assert (same['difference'].dropna() == 0).all()
