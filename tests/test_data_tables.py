"""Tables and lists as people write them: read as meant, asked, or refused in one line."""

import codecs

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_cases import one_line, told, write
from fmwsss.data.tables import check_classes, read_labels, read_list, read_table, save_labels
from fmwsss.files.errors import DataError, DataWarning, MissingData, SettingsError
from fmwsss.files.text import read_text
from fmwsss.method.labels import VOC_CLASSES

FEW = settings(max_examples=80, deadline=None, database=None, derandomize=True)


def table(folder, text, encoding="utf-8"):
    "Path of a table with this text."
    return write(folder / "labels.csv", text.encode(encoding))


# ---- encodings

UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
ANY_SCRIPT = st.text(st.characters(categories=["L", "M"]), min_size=3, max_size=8)


@FEW
@given(word=ANY_SCRIPT, encoding=st.sampled_from(UNICODE))
@pytest.mark.fault
def test_unicode_in_any_form_is_read(tmp_path_factory, word, encoding):
    import unicodedata

    path = table(tmp_path_factory.mktemp("t"), f"image,labels\na.jpg,{word}\n", encoding)
    expected = unicodedata.normalize("NFC", f"a.jpg,{word}")
    assert read_text(path).splitlines()[1] == expected


WORDS = {
    "gbk": "狗 猫 马 椅子 狗dog 银行 天空",
    "big5": "狗 貓 馬 椅子 沙發",
    "shift_jis": "犬 猫 馬 椅子 ネコ いぬ ソファ ﾈｺ",
    "euc_kr": "개 고양이 의자",
    "cp1251": "собака кошка стул лошадь дом Кот",
    "cp1253": "σκύλος γάτα",
    "cp1255": "כלב חתול",
}


@pytest.mark.parametrize("encoding", WORDS)
@pytest.mark.fault
def test_the_encodings_of_the_world_are_asked_for_and_then_read(tmp_path, encoding):
    for word in WORDS[encoding].split():
        for row in (f"a.jpg,{word}", f"{word}.jpg,dog"):
            path = table(tmp_path, f"image,labels\n{row}\n", encoding)
            with pytest.raises(DataError) as error:
                read_labels(path)
            one_line(error, "labels.csv", "UTF-8", "encoding")
            rows, classes = read_labels(path, encoding=encoding)
            assert word in classes + [name.removesuffix(".jpg") for name in rows]


@pytest.mark.fault
def test_two_bytes_of_asia_that_are_valid_utf8_are_asked_for(tmp_path):
    chars = [bytes([a, b]).decode("gbk") for a in range(0xC2, 0xE0) for b in range(0xA1, 0xC0)]
    silent = []
    for char in chars:
        try:
            silent.append(read_text(table(tmp_path, f"image,labels\na.jpg,{char}\n", "gbk")))
        except DataError as error:
            one_line(error, f"{char} in gbk", "may be in UTF-8 or not")
    assert not silent
    path = table(tmp_path, "image,labels\na.jpg,è\n")
    assert read_text(path, "utf-8").endswith("è\n")
    assert read_text(table(tmp_path, "image,labels\na.jpg,è\n", "utf-8-sig")).endswith("è\n")


@pytest.mark.parametrize("word", ["żółć", "été", "кот", "γάτα", "猫", "개", "chèvre", "25°C"])
def test_utf8_of_real_words_is_read_without_a_word(tmp_path, word):
    text, lines = told(lambda: read_text(table(tmp_path, f"a.jpg,{word}\n")))
    assert text == f"a.jpg,{word}\n" and not lines


@pytest.mark.fault
def test_the_question_shows_the_word_in_the_right_encoding(tmp_path):
    for encoding, word in (("gbk", "狗"), ("shift_jis", "犬"), ("cp1251", "собака")):
        with pytest.raises(DataError) as error:
            read_text(table(tmp_path, f"a.jpg,{word}\n", encoding))
        one_line(error, f"{word} in {encoding}")


def test_western_european_is_read(tmp_path):
    for word in ("Käse", "größe", "Öl", "Straße", "café", "ü"):
        text, lines = told(lambda w=word: read_text(table(tmp_path, w, "cp1252")))
        assert text == word and not lines


@pytest.mark.fault
def test_western_european_that_may_be_czech_is_told(tmp_path):
    for word in ("chèvre", "l’âne", "niño", "København", "forêt"):
        text, lines = told(lambda w=word: read_text(table(tmp_path, w, "cp1252")))
        assert text == word and len(lines) == 1
        one_line(lines[0], "Windows-1252", "cp1250")


@pytest.mark.fault
def test_wrong_encodings_by_name(tmp_path):
    path = table(tmp_path, "a.jpg,собака\n", "cp1251")
    with pytest.raises(SettingsError) as error:
        read_text(path, "gkb")
    one_line(error, "'gkb'", "gbk")
    with pytest.raises(DataError) as error:
        read_text(path, "utf-8")
    one_line(error, "utf-8", "another encoding")
    with pytest.raises(DataError) as error:
        read_text(write(tmp_path / "x", codecs.BOM_UTF16_LE + b"a"))
    one_line(error, "utf-16")


# ---- separators, quotes, leftovers


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize(
    "rows",
    [
        "image,labels\n2.png,Käse;sofa\n",
        "image;labels\r\n2.png;Käse|sofa\r\n",
        "Image\tLabels\n2.png\tsofa;Käse\n\n",
        "image,labels,,\n2.png,Käse;sofa,,\n",
        "image|labels\n2.png|Käse;sofa\n",
        "sep=;\nimage;labels\n2.png;Käse|sofa\n",
        '"image","labels"\n"2.png","Käse;sofa"\n',
        "image , labels\n 2.png , Käse ; sofa ;\n",
        "image,labels\n./2.png,Käse；sofa\n",
        "image,labels\n.\\2.png,Käse;;sofa;\n",
        "\n\nimage,labels\n\n2.png,\u00a0Käse;\u200bsofa\n\n",
    ],
)
@pytest.mark.fault
def test_tables_of_all_kinds(tmp_path, encoding, rows):
    try:
        path = table(tmp_path, rows, encoding)
    except UnicodeEncodeError:
        return
    if encoding in ("latin-1", "cp1252") and "\u00a0" in rows:
        return
    found, classes = read_labels(path)
    assert classes == ["Käse", "sofa"] and {n: v.tolist() for n, v in found.items()} == {
        "2.png": [1, 1]
    }


@pytest.mark.parametrize(
    "rows, parts",
    [
        ("", ["empty"]),
        ("image,labels\n", ["no row"]),
        ("name,class\n2,sofa\n", ["image,labels"]),
        ("image,labels\n2\n", ["line 2", "columns"]),
        ("image,class\n2,sofa\n", ["line 2", "'sofa'", "0 or 1"]),
        ("image,sofa,sofa\n2,1,1\n", ["none twice"]),
        ("image,split\n2,train\n", ["image,labels"]),
        ("image,labels\n2,sofa,x,y\n", ["line 2", "columns"]),
        ("image,labels\n2,sofa\n2,tabby\n", ["line 3", "'2'", "line 2"]),
        ("image,labels\n2,sofa\n./2,tabby\n", ["line 3", "'2'", "line 2"]),
        ("image,labels\n,sofa\n", ["line 2", "file name"]),
        ("image,labels\n../2.png,sofa\n", ["line 2", "out of"]),
        ("image,labels\n/etc/passwd,sofa\n", ["out of"]),
        ("image,labels\nC:\\x.png,sofa\n", ["out of"]),
        ("image,labels\n2,\n", ["no class"]),
        ("image,labels\n2,nan\n", ["no class"]),
        ('image,labels\n"2,sofa\n', ["line"]),
        ("sep=;\nimage;labels\n2;a;b;c\n", ["line 3"]),
        ("image,dog\n2,maybe\n", ["line 2", "'maybe'"]),
        ("image,dog\n2,-1\n", ["line 2", "'-1'"]),
        ("image,dog\n2,0.7\n", ["line 2", "'0.7'"]),
        ("image,labels\n2,#REF!\n", ["line 2", "#REF!", "formula"]),
        ("image,labels\n2,#NAME?\n", ["line 2", "#NAME?", "formula"]),
        ("image,labels\n2,#BEZUG!\n", ["line 2", "#BEZUG!", "formula"]),
        ('image,labels\n2,"[1, 0, 1]"\n', ["line 2", "list of numbers", "column"]),
        ("image,labels\n2,sofa\n3,x\n2,tabby\n", ["line 4", "one row, 2,sofa;tabby"]),
        ("# mine\nimage,labels\n2,sofa\n", ["# mine", "image,labels"]),
        ('"image,labels"\n"2,sofa"\n', ["first line"]),
    ],
)
@pytest.mark.fault
def test_bad_tables(tmp_path, rows, parts):
    with pytest.raises(DataError) as error:
        read_labels(table(tmp_path, rows))
    one_line(error, "labels.csv", *parts)


@pytest.mark.fault
def test_files_that_systems_leave_are_no_photos(tmp_path):
    files = ("a.jpg", "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini")
    rows = "".join(f"{name},dog\n" for name in files)
    assert list(read_labels(table(tmp_path, f"image,labels\n{rows}"))[0]) == ["a.jpg"]
    names = "._a\na\n.DS_Store\nThumbs.db\n"
    assert read_list(write(tmp_path / "x.txt", names.encode())) == ["a"]


BEGINNINGS = {
    "Office": b"PK\3\4" + bytes(range(200, 256)),
    "old Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\1",
    "PNG picture": b"\x89PNG\r\n\x1a\n",
    "PDF": b"%PDF-1.7\n\xe2\xe3\xcf\xd3",
    "gzip": b"\x1f\x8b\x08\x00\xff\xfe",
}


@pytest.mark.parametrize("kind", BEGINNINGS)
@pytest.mark.fault
def test_other_files_called_csv_are_called_what_they_are(tmp_path, kind):
    with pytest.raises(DataError) as error:
        read_labels(write(tmp_path / "labels.csv", BEGINNINGS[kind]))
    one_line(error, "labels.csv", kind)


@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
@pytest.mark.parametrize(
    "rows", ["image,labels\n0,a,dog\n1,b,cat", "image,cat,dog\n0,a,0,1\n1,b,1,0"]
)
@pytest.mark.fault
def test_the_row_numbers_of_pandas_are_no_class(tmp_path, first, rows):
    found, classes = read_labels(table(tmp_path, f"{first},{rows}\n"))
    assert classes == ["cat", "dog"]
    assert found["a"].tolist() == [0, 1] and found["b"].tolist() == [1, 0]


@pytest.mark.fault
def test_columns_that_are_not_read_are_told(tmp_path):
    path = table(tmp_path, "image,labels,cat,width\na,dog,1,640\nb,cat,0,480\n")
    (rows, classes), lines = told(lambda: read_labels(path))
    assert classes == ["cat", "dog"] and rows["a"].tolist() == [0, 1] and len(lines) == 1
    one_line(lines[0], "labels.csv", "cat, width", "not read")


@pytest.mark.fault
def test_a_row_twice_counts_once_and_is_told(tmp_path):
    path = table(tmp_path, "image,labels\na,dog;cat\nb,dog\n./a,cat;dog\n")
    (rows, _), lines = told(lambda: read_labels(path))
    assert rows["a"].tolist() == [1, 1] and len(rows) == 2
    one_line(lines[0], "several lines", "counted once")


# ---- what scripts and web pages write


@pytest.mark.parametrize(
    "cell",
    [
        "['dog', 'sofa']",
        '["dog", "sofa"]',
        "['dog' 'sofa']",
        "('dog', 'sofa')",
        "{'dog', 'sofa'}",
        "['dog',\n 'sofa',]",
        "[dog; sofa]",
        "'dog';'sofa'",
        "“dog”; ‘sofa’",
        "do\u00adg;so\u200dfa",
        "dog\0;\u202asofa\u202c",
        "dog&#59;sofa",
    ],
)
@pytest.mark.fault
def test_cells_of_scripts_are_read_as_meant(tmp_path, cell):
    quoted = cell.replace('"', '""')
    path = table(tmp_path, f'image,labels\na,"{quoted}"\nb,dog\nc,sofa\nd,[]\n')
    rows, classes = read_labels(path)
    assert classes == ["dog", "sofa"]
    assert rows["a"].tolist() == [1, 1] and rows["d"].tolist() == [0, 0]


@pytest.mark.fault
def test_names_from_web_pages(tmp_path):
    path = table(tmp_path, "image,labels\na,salt &amp; pepper\nb,R&B;rock\nc,caf&eacute;\n")
    assert read_labels(path)[1] == ["R&B", "café", "rock", "salt & pepper"]


@pytest.mark.fault
def test_quotes_that_belong_to_a_known_name_stay(tmp_path):
    path = table(tmp_path, "image,labels\na,'dog'\n")
    assert read_labels(path, ["'dog'", "dog"])[0]["a"].tolist() == [1, 0]
    assert read_labels(path, ["dog"])[0]["a"].tolist() == [1]


# ---- commas in a cell


@pytest.mark.parametrize("comma", [",", ", ", "，", "、"])
@pytest.mark.fault
def test_commas_between_known_classes_separate(tmp_path, comma):
    text = f'image,labels\na,"dog{comma}person"\nb,dog\nc,person\n'
    rows, classes = read_labels(table(tmp_path, text))
    assert classes == ["dog", "person"] and rows["a"].tolist() == [1, 1]
    text = f'image,labels\na,"dog{comma}person"\n'
    assert read_labels(table(tmp_path, text), ["person", "dog"])[0]["a"].tolist() == [1, 1]
    text = f'image,labels\na,"dog{comma}person"\nb,"person{comma}cat"\nc,"cat{comma}dog"\n'
    assert read_labels(table(tmp_path, text))[1] == ["cat", "dog", "person"]


@pytest.mark.parametrize("comma", [",", ", ", "，", "、"])
@pytest.mark.fault
def test_commas_that_may_belong_to_a_name_are_asked(tmp_path, comma):
    name = f"dog{comma}person"
    for rows in (f'a,"{name}"\nb,dog\n', f'a,"{name}"\nb,"{name}"\n', f'a,"{name}"\n'):
        with pytest.raises(DataError) as error:
            read_labels(table(tmp_path, f"image,labels\n{rows}"))
        one_line(error, "line 2", name, "write dog|person")
    rows, classes = read_labels(table(tmp_path, f'image,labels\na,"{name}"\n'), [name, "dog"])
    assert classes == [name, "dog"] and rows["a"].tolist() == [1, 0]


# ---- names of classes


@pytest.mark.fault
def test_classes_that_differ_only_in_capitals_are_one(tmp_path):
    path = table(tmp_path, "image,labels\na,Dog\nb,dog\nc,dog;DOG\n")
    (rows, classes), lines = told(lambda: read_labels(path))
    assert classes == ["dog"] and all(row.tolist() == [1] for row in rows.values())
    assert len(lines) == 2
    one_line(lines[0], "'DOG' and 'dog'", "capitals")
    assert read_labels(path, ["Dog", "cat"])[0]["b"].tolist() == [1, 0]


@pytest.mark.parametrize("nothing", ["nan", "NaN", "None", "null", "N/A", "#N/A", "<NA>", "-"])
@pytest.mark.fault
def test_what_scripts_write_for_nothing_is_no_class(tmp_path, nothing):
    path = table(tmp_path, f"image,labels\na,{nothing}\nb,dog\n")
    (rows, classes), lines = told(lambda: read_labels(path))
    assert classes == ["dog"] and rows["a"].tolist() == [0]
    one_line(lines[0], nothing, "no class")
    assert read_labels(path, ["dog", nothing])[0]["a"].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["7", "0", "1.5", "yes", "No", "true", "background"])
@pytest.mark.fault
def test_names_that_are_hardly_names_are_told(tmp_path, name):
    path = table(tmp_path, f"image,labels\na,{name}\nb,dog\n")
    (rows, classes), lines = told(lambda: read_labels(path))
    assert set(classes) == {name, "dog"} and len(lines) == 1
    one_line(lines[0], name)


@pytest.mark.parametrize("name", ["traffic_light", "Traffic-Light", "traffic  light"])
@pytest.mark.fault
def test_classes_that_differ_only_in_their_joints_are_one(tmp_path, name):
    path = table(tmp_path, f"image,labels\na,traffic light\nb,{name}\nc,traffic light;dog\n")
    (rows, classes), _ = told(lambda: read_labels(path))
    assert classes == ["dog", "traffic light"] and rows["b"].tolist() == [0, 1]
    assert read_labels(path, ["dog", "traffic_light"])[0]["b"].tolist() == [0, 1]


ODD = {
    "?": "without a letter",
    "???": "without a letter",
    "unknown": "nobody knows",
    "Other": "nobody knows",
    "id": "numbers of rows",
    "dog/cat": "write dog;cat",
    "dog + cat": "write dog;cat",
    "dog cat": "write dog;cat",
    "dogs": "'dog' and 'dogs'",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.fault
def test_names_that_may_mean_another_thing_are_told(tmp_path, name):
    path = table(tmp_path, f"image,labels\na,{name}\nb,dog\nc,cat\n")
    (_, classes), lines = told(lambda: read_labels(path))
    assert classes == sorted([name, "dog", "cat"]) and len(lines) == 1
    one_line(lines[0], "labels.csv", ODD[name])


@pytest.mark.parametrize(
    "name", ["traffic light", "café au lait", "großer Hund 🐕", "x-ray", "24h"]
)
def test_names_of_things_pass_without_a_word(tmp_path, name):
    path = table(tmp_path, f"image,labels\na,{name}\nb,dog\n")
    (_, classes), lines = told(lambda: read_labels(path))
    assert name in classes and not lines


@pytest.mark.parametrize("yes", ["1", "1.0", "yes", "Yes", "TRUE", "True", "x", "✓"])
@pytest.mark.parametrize("no", ["0", "0.0", "no", "False", "", "nan"])
@pytest.mark.fault
def test_ticks_of_all_kinds(tmp_path, yes, no):
    path = table(tmp_path, f"image,dog,cat\na,{yes},{no}\nb,{no},{yes}\n")
    rows, classes = read_labels(path)
    assert classes == ["dog", "cat"]
    assert rows["a"].tolist() == [1, 0] and rows["b"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "classes, words",
    [
        (["dog", True], "YAML"),
        (["dog", None], "YAML"),
        (["dog", "dog "], "twice"),
        (["dog", ""], "nothing"),
    ],
)
@pytest.mark.fault
def test_classes_that_cannot_be_meant(classes, words):
    with pytest.raises(DataError) as error:
        check_classes(classes)
    one_line(error, words)


def test_classes_as_a_text_and_as_numbers():
    assert check_classes("dog, cat") == ["dog", "cat"] and check_classes([1, 2.5]) == ["1", "2.5"]


@pytest.mark.fault
def test_unknown_class_suggests_the_nearest(tmp_path):
    path = table(tmp_path, "image,labels\na,cat\nb,dgo\n")
    with pytest.raises(DataError) as error:
        read_labels(path, VOC_CLASSES)
    one_line(error, "labels.csv", "line 3", "'dgo'", "'dog'")


# ---- numbers of classes


@FEW
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["train", "val", "test"]), st.sets(st.sampled_from("abcdef"))),
        min_size=1,
        max_size=8,
    )
)
@pytest.mark.fault
def test_class_numbers_do_not_depend_on_the_split(tmp_path_factory, rows):
    assume(any(labels for _, labels in rows))
    lines = [f"{i},{';'.join(labels)},{split}\n" for i, (split, labels) in enumerate(rows)]
    path = table(tmp_path_factory.mktemp("t"), "image,labels,split\n" + "".join(lines))
    everything, classes = read_labels(path)
    for split in {split for split, _ in rows}:
        found, names = read_labels(path, split=split)
        assert names == classes
        assert all((row == everything[name]).all() for name, row in found.items())


@pytest.mark.fault
def test_splits_in_capitals_and_rows_without_one(tmp_path):
    path = table(tmp_path, "image,labels,Split\na,dog,Train\nb,cat,train \nc,cat,\nd,dog,val\n")
    (rows, classes), lines = told(lambda: read_labels(path, split="train"))
    assert list(rows) == ["a", "b"] and classes == ["cat", "dog"]
    one_line(lines[0], "1 rows name no split", "c")


@pytest.mark.fault
def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    path = table(tmp_path, "image,labels,split\na,dog,train\nb,cat,val\n")
    with pytest.raises(DataError) as error:
        read_labels(path, split="test")
    one_line(error, "'test'", "train, val")


@pytest.mark.fault
def test_the_class_whose_label_means_ignore_is_refused(tmp_path):
    names = [f"thing {n:03d}" for n in range(300)]
    path = table(tmp_path, "image,labels\na,thing 253;thing 256\nb,thing 299\n")
    rows, _ = read_labels(path, names)
    assert np.flatnonzero(rows["a"]).tolist() == [253, 256]
    path = table(tmp_path, "image,labels\na,thing 254\n")
    with pytest.raises(DataError) as error:
        read_labels(path, names)
    one_line(error, "'thing 254'", "255", "ignore")


# ---- lists


@pytest.mark.parametrize(
    "lines, parts",
    [
        ("", ["no image"]),
        ("\n \n", ["no image"]),
        ("a\nb\na\n", ["line 3", "'a'", "line 1"]),
        ("a\n./a\n", ["line 2", "'a'", "line 1"]),
        ("a\n../b\n", ["line 2", "out of"]),
        ("/a\n", ["out of"]),
        ("a\\..\\b\n", ["out of"]),
    ],
)
@pytest.mark.fault
def test_bad_lists(tmp_path, lines, parts):
    with pytest.raises(DataError) as error:
        read_list(write(tmp_path / "x.txt", lines.encode()))
    one_line(error, "x.txt", *parts)


def test_lists_of_all_kinds(tmp_path):
    pairs = "/JPEGImages/a b.jpg /SegmentationClassAug/a b.png\nJPEGImages/ü.jpg\n"
    for content in (
        "a b\r\nü\r\n".encode("utf-8-sig"),
        "a b\nü".encode("latin-1"),
        pairs.encode(),
        "./a b\n./ü\n".encode("utf-16"),
    ):
        assert read_list(write(tmp_path / "x.txt", content)) == ["a b", "ü"]


@pytest.mark.fault
def test_missing_files(tmp_path):
    for read in (read_list, read_labels, read_text):
        with pytest.raises(MissingData) as error:
            read(tmp_path / "no.csv")
        one_line(error, "no.csv", "check the path")
        with pytest.raises(DataError) as error:
            read(tmp_path)
        one_line(error, "cannot be read")


# ---- written


@FEW
@given(labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_written_labels_are_read_back(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("t") / "x.csv"
    ids = [f"photo {n}, 'the' \"{n}th\"" for n in range(len(labels))]
    classes = ["a, b", "c", 'd "e"']
    save_labels(path, ids, np.array(labels, np.uint8), classes)
    rows, found = read_labels(path, classes)
    assert list(rows) == ids and found == classes
    assert (np.stack(list(rows.values())) == np.array(labels, np.uint8)).all()


def test_notes_of_a_table_are_kept(tmp_path):
    found = read_table(table(tmp_path, "image,labels\na,Dog;nan\nb,dog\n"))
    assert len(found.notes) == 2 and found.classes == ["dog"]
    with pytest.warns(DataWarning):
        read_labels(tmp_path / "labels.csv")
