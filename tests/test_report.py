"""The page of a run: structure, escaping, missing parts, size, words that follow from numbers."""
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from fmwsss.files.errors import DataError, MissingData
from fmwsss.report.claims import VERDICTS, claims_of, first_claims, not_held
from fmwsss.report.compare import compare_runs, compare_words
from fmwsss.report.page import build_report
from fmwsss.report.pictures import strip_panels
from fmwsss.report.run import load_run, read_table
from fmwsss.report.terms import TERMS, Terms
from report_run import FIRST_EDITION, TITLES, make_photo_run, make_run, make_strip, picture


class Page(HTMLParser):
    "All elements as (tag, attributes), the text, and whether tags are balanced."

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, html):
        super().__init__()
        self.elements, self.pieces, self.open = [], [], []
        self.feed(html)
        assert not self.open
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("p", "li", "td", "th", "h1", "h2", "h3", "span", "figure", "dt", "dd", "a"):
            self.pieces.append(" " * (tag != "a"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.pieces.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def built(run, **more):
    "The page of a run folder, parsed, and as text."
    html = build_report(run, **more).read_text(encoding="utf-8")
    page = Page(html)
    page.html = html
    return page


def change(run, **more):
    "Change run.json of a folder."
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | more))
    return run


def edit(file, old, new):
    "Replace text in a file; it must be there."
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "toy")


@pytest.fixture(scope="module")
def page(root):
    return built(root)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return built(make_photo_run(tmp_path_factory.mktemp("photos")))


# ---- structure


@pytest.mark.parametrize("name", ["page", "photos"])
def test_structure(name, request):
    page = request.getfixturevalue(name)
    assert page.all("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert len(page.all(landmark)) == 1, landmark
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert not link["href"].startswith("#") or link["href"][1:] in ids
    labelled = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(labelled) <= set(ids)
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_counts(page, photos):
    assert len(page.all("img")) == 4 + 6 and len(page.all("table")) >= 10
    assert len(photos.all("img")) == 14


def test_sortable_markup(page):
    heads = [a for a in page.all("th") if "data-type" in a]
    assert heads and all(a["aria-sort"] == "none" and a["scope"] == "col" for a in heads)
    assert {a["data-type"] for a in heads} == {"number", "text"}
    assert len(page.all("button")) == len(heads)
    rows = [a for a in page.all("th") if a["scope"] == "row"]
    assert len(rows) == len(page.all("tr")) - len(page.all("table"))


@pytest.mark.parametrize("name", ["page", "photos"])
def test_nothing_is_fetched(name, request):
    page = request.getfixturevalue(name)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.html)
    assert "url(" not in page.html and "@import" not in page.html
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert {a.get("rel") for a in page.all("link")} == {"icon"}
    assert all("src" not in a for a in page.all("script")) and "default-src 'none'" in page.html


def test_links_point_into_the_run(root, page):
    files = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert files and all((root / f).is_file() for f in files)
    assert {"notebooks/seeds.ipynb", "tables/seeds.csv", "figures/bars.svg"} <= set(files)


def test_every_value_is_there(root, page):
    for name, table in load_run(root).tables.items():
        for value in table.to_numpy().ravel():
            if pd.isna(value) or isinstance(value, bool) or name == "claims":
                continue
            if isinstance(value, (int, float)):
                assert f'data-sort="{float(value)}"' in page.html, (name, value)
            elif name != "models":
                assert " ".join(value.split()) in page.text, (name, value)


def test_text_stays_text(page, photos):
    assert "<script>alert" not in page.html and "&lt;script&gt;alert" in page.html
    assert "<b>aeroplane" not in page.html and "<b>aeroplane</b> & co" in page.text
    assert "toy <preset>" in page.text and 'A "quoted" <caption>.' in page.text
    assert "mini<clip>" in page.text and "'a=<b>'" in page.text
    assert "<cat>" not in photos.html and "<cat>" in photos.text


def test_same_run_same_page(root, page):
    assert build_report(root).read_text(encoding="utf-8") == page.html


# ---- the first page


def test_it_opens_with_what_a_newcomer_must_learn(page):
    told = ["Weakly supervised semantic segmentation teaches", "a program has drawn"]
    told += ["One picture through the method", "What each step brings", "Five claims"]
    told += ["What did not hold", "To be said with it", "All claims", "How this run was made"]
    places = [page.text.index(words) for words in told]
    assert places == sorted(places)


def test_the_strip_becomes_steps(page, root):
    steps = re.findall(r'<ol class="steps".*?</ol>', page.html, re.S)
    heads = re.findall(r"</span> ([^<]+)</h3>", steps[0])
    assert heads == ["The picture", "CAM", "Masks", "Coarse", "Fine", "Truth"]
    panels = strip_panels(root / "figures/strip.png")
    assert list(panels) == TITLES and len({p.size[0] for p in panels.values()}) <= 2


@pytest.mark.parametrize("count", [2, 5, 6])
def test_strips_of_other_shapes(tmp_path, count):
    make_strip(tmp_path / "strip.png", TITLES[:count])
    assert list(strip_panels(tmp_path / "strip.png")) == TITLES[:count]


def test_a_strip_without_titles_is_not_guessed_at(tmp_path):
    make_strip(tmp_path / "strip.png", TITLES[:6])
    with Image.open(tmp_path / "strip.png") as image:
        image.convert("RGB").save(tmp_path / "plain.png")
    assert strip_panels(tmp_path / "plain.png") == {}
    assert strip_panels(tmp_path / "nowhere.png") == {}


def test_the_first_table(page):
    table = re.search(r'<table class="ladder">.*?</table>', page.html, re.S)[0]
    text = Page(table).text
    for words in ("Hand prompt", "“a photo of a dog”", "57.1 %", "55.0 to 59.1"):
        assert words in text, words
    assert "+6.3 points against hand prompt" in text and "+2.7 points against coarse" in text
    assert "Bound" in text and "21.0 points left to gain" in text
    assert "Dense CRF" in text and "−5.9 points against fine" in text


def test_the_first_table_without_hand_prompt_and_intervals(tmp_path):
    run = make_run(tmp_path / "run")
    seeds = read_table(run / "tables/seeds.csv")
    seeds = seeds[seeds.task != "fixed"].drop(columns=["low", "high"])
    seeds.to_csv(run / "tables/seeds.csv", index=False)
    table = re.search(r'<table class="ladder">.*?</table>', built(run).html, re.S)[0]
    assert "Hand prompt" not in table and "interval" not in Page(table).text


def test_five_claims_follow_the_method(root):
    claims = claims_of(load_run(root).tables)
    texts = [row.claim for _, row in first_claims(claims)]
    assert texts[0] == "Learned prompts beat prompts by hand"
    assert texts[1] == "Affinity improves on the raw CAM" and len(texts) == 5
    assert "The filter matters" not in texts


def test_a_long_list_of_claims_is_folded(tmp_path):
    run = make_run(tmp_path / "run")
    claims = pd.read_csv(run / "tables/claims.csv")
    small = claims[claims.verdict == "full run"]
    many = [small.assign(claim=f"Claim number {k} of a small run") for k in range(8)]
    pd.concat([claims, *many]).to_csv(run / "tables/claims.csv", index=False)
    before = built(make_run(tmp_path / "other")).html.count("<summary>All")
    html = built(run).html
    assert html.count("<summary>All") == before + 1
    assert html.index("<summary>All") < html.index("Claim number 7 of a small run")


def test_what_did_not_hold(page, root):
    groups = not_held(claims_of(load_run(root).tables))
    assert [g["verdict"] for g in groups] == ["opposite", "no effect", "undecided", "full run"]
    text = "Of 6 claims 2 hold; the others: 1 opposite, 1 no effect, 1 undecided, 1 full run."
    assert text in page.text
    below = page.text[page.text.index("All claims") :]
    for words in ("would fail if", "the interval reaches 0", "+5 points (Table 3)"):
        assert words in below, words
    assert "SAMS seed, val, 40 pictures, 3 trainings" in below
    assert "+5.9 points (95 % interval +4.0 to +7.7); 60.2 → 66.1 % mIoU" in page.text


def test_verdicts_in_words_and_colour(page):
    for word in ("holds", "opposite", "no effect", "undecided", "full run"):
        tone, sign, _ = VERDICTS[word]
        assert f'<span class="pill {tone}">{sign} {word}</span>' in page.html, word
        pill = f'<span class="pill {tone}"><span aria-hidden="true">{sign}</span> {word}</span>'
        assert pill in page.html, word


def test_terms_are_spelled_out_once_and_lead_somewhere(page):
    for words in ("SAM (Segment Anything Model)", "class activation map (CAM)"):
        assert words in page.text, words
    assert "mIoU (mean intersection over union)" in page.text
    assert page.text.count("(class-aware attention affinity)") == 1
    links = [a for a in page.all("a") if a.get("class") == "term"]
    assert len(links) >= 8 and all(a["title"] for a in links)
    assert len({a["href"] for a in links}) == len(links)


def test_terms_lead_to_the_site_if_there_is_one(tmp_path):
    page = built(make_run(tmp_path / "run", docs="https://example.org/fmwsss/"))
    links = [a["href"] for a in page.all("a") if a.get("class") == "term"]
    assert "https://example.org/fmwsss/nbs/method/04_cam.html" in links
    assert not [link for link in links if link.startswith("#")]
    bad = built(make_run(tmp_path / "bad", docs="javascript:alert(1)"))
    assert "javascript:" not in bad.html


def test_words_lead_to_a_site_built_beside_the_run(tmp_path):
    run = make_run(tmp_path / "runs/a")
    assert "Chapter: nbs/method/04_cam.ipynb" in built(run).text
    chapter = tmp_path / "docs/_build/html/nbs/method/04_cam.html"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("CAM")
    links = [a["href"] for a in built(run).all("a") if "04_cam" in a["href"]]
    assert len(links) == 1 and (run / links[0]).resolve() == chapter.resolve()


def test_chapters_of_terms_exist():
    nbs = Path(__file__).parent.parent / "nbs"
    assert [t.chapter for t in TERMS if not (nbs / f"{t.chapter}.ipynb").is_file()] == []


def test_a_term_is_not_found_inside_a_word():
    said = str(Terms().say("SAMS and CLIP-ES, not SAM nor CLIP; <CAMs> of CAMERA"))
    assert said.count("<a") == 5 and "CAMERA" in said and "&lt;<a" in said


# ---- words follow from numbers


def test_words_follow_from_numbers(root, tmp_path, page):
    best = "The best coarse seeds on val (40 pictures) come from SAMS with Felzenszwalb masks"
    assert f"{best}: mIoU 65.0 %." in page.text
    gains = "SAMS gains 9.7 points over CAA (class-aware attention affinity) and 7.3 over dense CRF"
    assert f"With coarse seeds, {gains}, and loses 1.6 points against SAMS with" in page.text
    assert "Of 2 targets for CLIP and SAM, 1 is met; missed: sam: mean best IoU per" in page.text
    other = make_run(tmp_path / "other")
    edit(other / "tables/seeds.csv", "0.6501", "0.6001")
    text = built(other).text
    assert "The best coarse seeds on val (40 pictures) come from SAMS: mIoU 63.4 %." in text


def test_a_loss_has_a_minus(tmp_path):
    run = make_run(tmp_path / "lost")
    edit(run / "tables/seeds.csv", "0.6614", "0.6245")
    assert "−1.0 points against coarse" in built(run).text


def test_fractions_have_a_unit(tmp_path):
    run = make_run(tmp_path / "units")
    (run / "tables/refiners.csv").write_text("method,miou,low,high\nsams,0.7,0.65,0.75\n")
    rows = "variant,miou,delta,low,high\nBCE,0.68,-0.0123,-0.02,0.001\n"
    (run / "tables/ablations_summary.csv").write_text(rows)
    page = built(run)
    assert "low (%)" in page.text and 'data-sort="0.65">65.0' in page.html
    assert "delta (points)" in page.text and 'data-sort="-0.0123">−1.23' in page.html
    assert "low (points)" in page.text and 'data-sort="-0.02">−2.00' in page.html


def test_origin_is_a_mark_beside_the_name(tmp_path):
    run = make_run(tmp_path / "origin")
    rows = "origin,method,miou\npublished,PSA,61.7\nmeasured,SAMS,60.0\n"
    (run / "tables/published.csv").write_text(rows)
    html = built(run).html
    assert re.search(r'PSA <span class="mark">published</span>', html)
    assert re.search(r'SAMS <span class="mark">measured</span>', html) and ">origin<" not in html


def test_published_figures_are_marked(page):
    assert re.search(r'CLIP-ES <span class="mark">published</span>', page.html)
    assert page.html.count('<span class="mark">published</span>') == 1


# ---- runs of the first edition


def test_claims_of_the_first_edition(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "tables/claims.csv").write_text(FIRST_EDITION)
    claims = claims_of(load_run(run).tables)
    words = ["holds", "undecided", "no effect", "opposite", "does not hold", "not measured"]
    assert list(claims.verdict) == words
    assert list(claims.paper.fillna("")) == ["", "", "", "", "at most 1.05 times", ""]
    page = built(run)
    assert "Of 6 claims 1 holds" in page.text and "cannot tell" not in page.text


def test_a_run_of_the_first_edition(tmp_path):
    run = make_run(tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    for key in ("differs_from_paper", "skipped", "errors", "command"):
        del info[key]
    info["parameters"] = dict(n_ctx=16, notebooks="seeds")
    (run / "run.json").write_text(json.dumps(info))
    assert "How this run was made" in built(run).text


# ---- how it was made


def test_what_differs_from_the_paper(page):
    text = Page(re.search(r'<section id="making".*?</section>', page.html, re.S)[0]).text
    assert "Command: fmwsss reproduce toy" in text and "Full settings" in text
    assert re.search(r"models.clip ViT-B-16-quickgelu mini<clip>", text)
    assert re.search(r"segmentation.training.steps 17000 60", text)
    assert "<details><summary>Full settings" in page.html and "caa.power" in text


# ---- missing, failed, odd


def test_missing_parts_are_left_out_and_named_once(tmp_path):
    page = built(make_run(tmp_path / "bare", parts=()))
    assert "tables/seeds.csv is not in the run, although notebook seeds ended well" in page.text
    assert page.text.count("Notebook refiners failed") == 1 and "Read this first" in page.text
    assert "Not run: gallery." in page.text and "How this run was made" in page.text
    for title in ("Five claims", "What each step brings", "All claims", "Models"):
        assert title not in page.text


def test_a_good_run_has_no_complaint(tmp_path):
    books = [dict(name="seeds", seconds=20.5, ok=True)]
    settings = dict(data=dict(kind="minivoc"), notebooks=["seeds"])
    run = make_run(tmp_path / "good", notebooks=books, parameters=settings)
    text = built(run).text
    assert "Missing" not in text and "Read this first" not in text and "failed" not in text


def test_unreadable_parts_do_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / "broken")
    (run / "tables/models.csv").write_text("")
    for name in ("strip", "strip_1"):
        (run / f"figures/{name}.png").write_bytes(b"no picture")
    page = built(run)
    assert page.text.count("tables/models.csv could not be read") == 1
    assert "figures/strip_1.png could not be read" in page.text and "figure-strip_0" in page.html
    assert "One picture through the method" not in page.text


def test_odd_tables_do_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / "odd")
    for name, text in dict(
        seeds="something,else\n1,2\n",
        claims="claim\n",
        models="model,measure,value,target\n",
        empty="a,b\n",
        settings="x\n",
    ).items():
        (run / f"tables/{name}.csv").write_text(text)
    page = built(run)
    assert "Empty" not in page.text and ">Models<" not in page.html


@pytest.mark.parametrize(
    "key,value",
    [
        ("parameters", "text"),
        ("parameters", dict(data=None)),
        ("notebooks", None),
        ("skipped", None),
        ("errors", []),
        ("notes", None),
        ("seeds", 3),
        ("machine", "a laptop"),
        ("stages", "none"),
        ("differs_from_paper", None),
        ("started", "yesterday"),
    ],
)
def test_an_odd_record_does_not_stop_the_page(tmp_path, key, value):
    built(change(make_run(tmp_path / "run", parts=("tables",)), **{key: value}))


@pytest.mark.parametrize(
    "spoil,error,words",
    [
        (None, MissingData, "run folder not found"),
        ("empty", MissingData, "no run.json"),
        ("{", DataError, "not valid JSON"),
        ("[1]", DataError, "no JSON object"),
    ],
)
def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path, spoil, error, words):
    run = tmp_path / "run"
    if spoil:
        run.mkdir()
    if spoil in ("{", "[1]"):
        (run / "run.json").write_text(spoil)
    with pytest.raises(error, match=words) as raised:
        build_report(run)
    assert "\n" not in str(raised.value) and str(run) in str(raised.value)


def test_failed_notebooks_errors_and_skipped_pictures_are_told_apart(tmp_path):
    run = make_run(tmp_path / "run", parts=())
    info = json.loads((run / "run.json").read_text())
    info["notebooks"][1]["error"] = "ValueError: no <weights>"
    skipped = {f"img{k}": "masks: corrupt" for k in range(7)} | dict(bug="seeds: KeyError")
    change(run, notebooks=info["notebooks"], skipped=skipped, errors=dict(bug="seeds: KeyError"))
    page = built(run)
    assert "Notebook refiners failed" in page.text and "ValueError: no <weights>" in page.text
    assert "7 pictures were skipped: img0 (masks: corrupt)" in page.text
    assert "1 picture was lost by an error in the code, not in the picture: bug" in page.text


def test_page_stays_small(tmp_path):
    run = make_run(tmp_path / "large", pictures=0)
    for k in range(12):
        Image.fromarray(picture(k, (400, 2000), 60)).save(run / f"figures/strip_{k}.png")
    assert sum(f.stat().st_size for f in (run / "figures").iterdir()) > 15e6
    path = build_report(run)
    assert path.stat().st_size < 6e6
    assert path.read_text(encoding="utf-8").count("<img") == 12 + 2 + 6


def test_long_tables_are_cut_and_say_so(tmp_path):
    run = make_run(tmp_path / "long")
    table = pd.DataFrame(dict(image=range(5000), miou=0.5))
    table.to_csv(run / "tables/images.csv", index=False)
    assert "first 1000 of 5000 rows" in built(run).text


# ---- own photos


def test_every_photo_with_its_label_map_and_a_legend(photos):
    assert "Label maps of your photos" in photos.text and "no scores" in photos.text
    for k in range(14):
        assert f"photo {k}" in photos.text
    legend = re.search(r'<ul class="legend".*?</ul>', photos.html, re.S)[0]
    assert "dog label 2, in 12 photos" in Page(legend).text and "background:#008000" in legend
    assert "13 of 14 photos have a label map." in photos.text
    assert "1 photo is background only: nothing was found (photo 3)." in photos.text
    assert "not found: <cat>" in photos.text and "masks: no readable image" in photos.text


def test_own_photos_have_no_empty_sections(photos):
    for words in ("Five claims", "What each step brings", ">Seeds<", "tables/claims.csv"):
        assert words not in photos.html
    assert "is not in the run" not in photos.text


def test_own_photos_that_have_gone(tmp_path):
    run = make_photo_run(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = built(run)
    assert len(page.all("img")) == 13 and "photo 13" in page.text


def test_own_photos_without_legend(tmp_path):
    run = make_photo_run(tmp_path)
    (run / "pseudo_labels/all/classes.csv").unlink()
    assert "label 2" in built(run).text


# ---- two runs


@pytest.fixture
def two(root, tmp_path):
    other = make_run(tmp_path / "other", commit="fedcba")
    edit(other / "tables/seeds.csv", "0.6614,0.6402,0.6823", "0.6934,0.6900,0.7100")
    edit(other / "tables/seeds.csv", "classification,crf,val,40,0.5612,0.5433,0.5794,0.031\n", "")
    (other / "tables/published.csv").unlink()
    Image.fromarray(picture(7)).save(other / "figures/strip_1.png")
    return root, other


def test_compare(two, tmp_path):
    found = compare_runs(*two, page=tmp_path / "compare.html")
    found = found.set_index(["table", "row", "column"])
    row = ("seeds", "segmentation, sams, val", "miou")
    assert found.loc[row, "difference"] == pytest.approx(0.032)
    assert found.loc[("seeds", "classification, crf, val", "miou"), "b"] is None
    assert found.loc["published"]["b"].isna().all()
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "+3.2" in page.text and "69.3 (69.0 to 71.0)" in page.text
    assert "intervals apart" in page.text and html.count("<img") == 5
    assert "A: toy" in page.text and "B: other" in page.text
    assert "A and B: A &#34;quoted&#34;" in html
    assert page.text.index("Settings that differ") < page.text.index("values of seeds.csv")


def test_compare_in_words(two):
    words = compare_words(compare_runs(*two))
    assert words.startswith("Settings that differ:") and "fedcba" in words
    row = next(line for line in words.splitlines() if "segmentation, sams, val" in line)
    assert "66.1 % (64.0 to 68.2)" in row and "+3.2 points, intervals apart" in row
    assert "classification, crf, val" in words and "–" in words


def test_a_run_compared_with_itself(root):
    same = compare_runs(root, root)
    assert (same["difference"].dropna() == 0).all() and "No setting differs." in compare_words(same)


def test_compare_editions(two):
    old = two[1]
    (old / "tables/claims.csv").write_text(FIRST_EDITION)
    found = compare_runs(*two)
    assert "verdict" in set(found[found["table"] == "claims"]["column"])
