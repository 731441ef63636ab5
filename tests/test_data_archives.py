"""Status, download, unpacking: resumed, checked, safe."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

from data_cases import coco, folder, one_line, voc
from fmwsss.data import archives
from fmwsss.data.archives import download, extract, status
from fmwsss.files import download as downloading
from fmwsss.files.download import fetch
from fmwsss.files.errors import DataError, MissingData, SettingsError


def test_status(tmp_path):
    table = status("voc2012", voc(tmp_path))
    columns = ["part", "path", "found", "expected", "state", "how to get"]
    assert list(table.columns) == columns
    rows = table.set_index("part")
    assert rows.state["photos"] == "incomplete" and rows.state["masks of train_aug"] == "missing"
    assert "by hand" in rows["how to get"]["masks of train_aug"]
    assert rows.state["list test"] == "optional" and rows.found["list train"] == 3
    assert (status("coco2014", coco(tmp_path / "c")).found > 0).sum() == 2
    assert status("folder", folder(tmp_path / "f")).state[0] == "complete"
    assert status("voc2012", tmp_path / "nowhere").state[0] == "missing"
    assert status("minivoc", tmp_path).state.tolist()[0] == "complete"
    with pytest.raises(SettingsError):
        status("imagenet", tmp_path)


# ---- download


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, from the middle if asked.

    limit: bytes until it breaks off; codes: answers before that; way: how it understands ranges."""

    content, limit, codes, way = b"", None, [], "right"

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append((self.path, start))
        if self.codes:
            self.send_response(self.codes.pop(0))
            self.end_headers()
            return
        if self.way == "none":
            start = 0
        if start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        sent = 0 if self.way == "other piece" else start
        self.send_response(206 if start else 200)
        if start:
            whole = len(self.content)
            self.send_header("Content-Range", f"bytes {sent}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(self.content) - sent))
        self.end_headers()
        self.wfile.write(self.content[sent:][: self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloading.time, "sleep", lambda seconds: None)
    handler = type("Handler", (Server,), dict(asked=[], codes=[]))
    web = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{web.server_port}/photos.zip"
    yield handler
    web.shutdown()
    web.server_close()


def zipped(*names):
    "The bytes of a ZIP with these files."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name * 20000)
    return buffer.getvalue()


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


def starts(server):
    return [start for _, start in server.asked]


@pytest.mark.fault
def test_a_broken_connection_goes_on_by_itself(tmp_path, server):
    server.content, server.limit = zipped("a", "b") * 5, 50_000
    path = fetch(server.url, tmp_path, md5(server.content), progress=False)
    assert path.read_bytes() == server.content and starts(server)[0] == 0
    assert starts(server) == sorted(starts(server)) and len(server.asked) > 2
    assert [p.name for p in tmp_path.iterdir()] == ["photos.zip"]


@pytest.mark.fault
def test_a_call_goes_on_where_the_last_one_stopped(tmp_path, server):
    server.content, server.limit = zipped("train2014/a.jpg", "train2014/b.jpg"), 200_000
    parts = [(server.url, md5(server.content), len(server.content), {"train2014": 2})]
    with pytest.raises(MissingData) as error:
        fetch(server.url, tmp_path, md5(server.content), len(server.content), False, tries=1)
    one_line(error, server.url, tmp_path, "photos.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip.part"]
    server.limit = None
    table = download("coco2014", tmp_path, parts, progress=False)
    assert 0 < starts(server)[1] <= 200_000 and table.found[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train2014"]
    download("coco2014", tmp_path, parts, progress=False)
    assert len(server.asked) == 2  # complete: the network is not asked again


@pytest.mark.fault
def test_a_complete_part_is_checked_and_taken(tmp_path, server):
    server.content = zipped("a")
    (tmp_path / "photos.zip.part").write_bytes(server.content)
    path = fetch(server.url, tmp_path, md5(server.content), progress=False)
    assert path.read_bytes() == server.content and starts(server) == [len(server.content)]


@pytest.mark.parametrize("part", [b"x" * 100, b"x" * 10_000_000])
@pytest.mark.fault
def test_a_part_of_another_file_is_got_anew(tmp_path, server, part):
    server.content = zipped("a")
    (tmp_path / "photos.zip.part").write_bytes(part)
    path = fetch(server.url, tmp_path, md5(server.content), progress=False)
    assert path.read_bytes() == server.content and starts(server)[-1] == 0


@pytest.mark.parametrize("way", ["none", "other piece"])
@pytest.mark.fault
def test_servers_that_do_not_understand_ranges(tmp_path, server, way):
    server.content, server.way = zipped("a", "b"), way
    (tmp_path / "photos.zip.part").write_bytes(server.content[:1000])
    path = fetch(server.url, tmp_path, md5(server.content), progress=False)
    assert path.read_bytes() == server.content


@pytest.mark.fault
def test_a_busy_server_is_asked_again_and_a_wrong_address_is_not(tmp_path, server):
    server.content, server.codes[:] = zipped("a"), [503, 429]
    assert fetch(server.url, tmp_path, md5(server.content), progress=False).is_file()
    server.codes[:] = [404, 404]
    with pytest.raises(MissingData) as error:
        fetch(server.url, tmp_path / "other", md5(server.content), progress=False)
    one_line(error, "404", server.url)
    assert len(server.asked) == 4


@pytest.mark.fault
def test_a_wrong_checksum_leaves_nothing(tmp_path, server):
    server.content = zipped("a.jpg")
    with pytest.raises(DataError) as error:
        parts = [(server.url, md5(b""), None, {"train2014": 2})]
        download("coco2014", tmp_path, parts, progress=False)
    one_line(error, "photos.zip", "checksum")
    assert not list(tmp_path.iterdir())
    server.content = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(DataError) as error:
        fetch(server.url, tmp_path, md5(b""), progress=False)
    one_line(error, "web page", "proxy")


@pytest.mark.fault
def test_a_file_that_is_there_but_wrong_is_got_anew(tmp_path, server):
    server.content = zipped("a")
    (tmp_path / "photos.zip").write_bytes(b"half of it")
    path = fetch(server.url, tmp_path, md5(server.content), progress=False)
    assert path.read_bytes() == server.content


@pytest.mark.fault
def test_without_network_or_room(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading.time, "sleep", lambda seconds: None)
    address = "http://127.0.0.1:9/x.zip"
    with pytest.raises(MissingData) as error:
        download("coco2014", tmp_path, [(address, md5(b""), 5, {"x": 1})], progress=False)
    one_line(error, address, tmp_path)
    with pytest.raises(DataError) as error:
        download("coco2014", tmp_path, [(address, md5(b""), 10**18, {"x": 1})], progress=False)
    one_line(error, "no room")
    with pytest.raises(DataError) as error:
        download("folder", tmp_path)
    one_line(error, "cannot be downloaded")


@pytest.mark.fault
def test_a_disk_that_is_full_is_told(tmp_path, server, monkeypatch):
    server.content = zipped("a")
    room = type("Room", (), dict(free=10))
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: room)
    with pytest.raises(MissingData) as error:
        fetch(server.url, tmp_path, md5(server.content), progress=False)
    one_line(error, "the disk is full")


@pytest.mark.fault
def test_the_proxy_of_the_environment_is_used(tmp_path, server, monkeypatch):
    server.content = zipped("a")
    proxy = server.url.removesuffix("/photos.zip")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = "http://far.away.example/photos.zip"
    assert fetch(address, tmp_path, md5(server.content), progress=False).is_file()
    assert server.asked[0][0] == address  # a proxy is asked for the whole address
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(MissingData) as error:
        fetch("http://far.away.example/other.zip", tmp_path, progress=False)
    one_line(error, "ProxyError")


@pytest.mark.fault
def test_two_programs_that_want_the_same_file_do_not_disturb_each_other(tmp_path, server):
    server.content = zipped("a", "b", "c")
    known, found = md5(server.content), []
    get = lambda: found.append(fetch(server.url, tmp_path, known, progress=False).read_bytes())
    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [server.content] * 4 and len(server.asked) == 1


def test_names_of_files_behind_addresses(tmp_path, server):
    server.content = b"x"
    for end, name in (("?dl=1", "photos.zip"), ("/my%20photo.zip", "my photo.zip")):
        assert fetch(server.url + end, tmp_path, md5(b"x"), progress=False).name == name


# ---- archives of somebody else


def evil_tar(path, kind):
    "A tar with a good file and one that leads out."
    with tarfile.open(path, "w") as archive:
        names = dict(up="../up.txt", deep="a/../../up.txt", root="/up.txt")
        info = tarfile.TarInfo(names.get(kind, "link"))
        types = dict(symlink=tarfile.SYMTYPE, hardlink=tarfile.LNKTYPE, device=tarfile.CHRTYPE)
        info.type, info.linkname = types.get(kind, tarfile.REGTYPE), "../up.txt"
        info.size = 0 if kind in types else 3
        good = tarfile.TarInfo("good.txt")
        good.size = 3
        archive.addfile(good, io.BytesIO(b"abc"))
        archive.addfile(info, io.BytesIO(b"abc"))


@pytest.mark.parametrize("kind", ["up", "deep", "root", "symlink", "hardlink", "device"])
@pytest.mark.fault
def test_evil_tar_archives(tmp_path, kind):
    evil_tar(tmp_path / "evil.tar", kind)
    with pytest.raises(DataError) as error:
        extract(tmp_path / "evil.tar", tmp_path / "in")
    one_line(error, "evil.tar")
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.tar"]


@pytest.mark.parametrize("name", ["../up.txt", "/up.txt", "a/../../up.txt", "..\\up.txt", "link"])
@pytest.mark.fault
def test_evil_zip_archives(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        archive.writestr("good.txt", "abc")
        archive.writestr(info, "abc")
    with pytest.raises(DataError) as error:
        extract(tmp_path / "evil.zip", tmp_path / "in")
    one_line(error, "evil.zip")
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.zip"]


@pytest.mark.fault
def test_a_link_in_the_target_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in/train2014").symlink_to(tmp_path / "outside")
    (tmp_path / "a.zip").write_bytes(zipped("train2014/a.jpg"))
    with pytest.raises(DataError) as error:
        extract(tmp_path / "a.zip", tmp_path / "in")
    one_line(error, "link")
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.fault
def test_damaged_archives(tmp_path):
    for name, content in (("a.zip", zipped("a", "b")), ("a.tar", b"x" * 2000)):
        (tmp_path / name).write_bytes(content[:-50])
        with pytest.raises(DataError) as error:
            extract(tmp_path / name, tmp_path / "in")
        one_line(error, name, "damaged")


@pytest.mark.fault
def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    parts = [("http://127.0.0.1:9/x.zip", md5(b""), 5, {"x": 1})]
    with pytest.raises(DataError) as error:
        download("coco2014", tmp_path / "file/in", parts, progress=False)
    one_line(error, "file/in", "another place")
    (tmp_path / "a.zip").write_bytes(zipped("a"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(DataError) as error:
        extract(tmp_path / "a.zip", tmp_path / "in")
    one_line(error, "a.zip", "No space left", "call again")
    assert not (tmp_path / "in/a").exists()
