"""What an object store refuses is a sentence with the bucket and the fix, at once, whatever it calls its errors."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rushes.curation import stores
from rushes.curation.manifest import ManifestError, open_run
from rushes.curation.outputs import check_file, check_folder
from rushes.curation.video.inputs import InputError, list_inputs

AT_ONCE_S = 10.0  # pyarrow asks a store that is away for minutes
EMPTY = b'<?xml version="1.0"?><ListBucketResult><Name>films</Name><KeyCount>0</KeyCount></ListBucketResult>'


class _Store(BaseHTTPRequestHandler):
    """The bucket `films`, which is empty, and `closed`, to which nobody has the keys."""

    def do_HEAD(self) -> None:
        bucket = self.path.split("?")[0].strip("/")
        self._answer(403 if bucket.startswith("closed") else 200 if bucket == "films" else 404)

    def do_GET(self) -> None:
        closed = self.path.startswith("/closed")
        self._answer(403 if closed else 200 if self.path.startswith("/films") else 404, b"" if closed else EMPTY)

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def endpoint(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def at(name: str, endpoint: str) -> str:
    return f"s3://a:b@{name}?endpoint_override={endpoint}&scheme=http&region=us-east-1"


def no_one_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobucket/day1", r"no bucket 'nobucket' at http://127.0.0.1:\d+: check its name .*aws s3 mb s3://nobucket"),
        ("closed/day1", r"does not let us into the bucket 'closed' \(ACCESS_DENIED\): give AWS_ACCESS_KEY_ID and "),
        ("films/day1", r"the bucket 'films' is there, and holds nothing below 'day1/'"),
    ],
)
def test_an_input_that_is_not_there_names_the_bucket_and_the_fix(endpoint, name, said):
    with pytest.raises(InputError, match=said) as error:
        list_inputs([at(name, endpoint)])
    assert "AWS Error" not in str(error.value) and "a:b@" not in str(error.value), "nor a key"


def test_an_output_and_a_run_in_no_bucket_are_refused_before_the_work(endpoint):
    for refuse in (check_folder, open_run):
        with pytest.raises(ManifestError, match="there is no bucket 'nobucket'"):
            refuse(at("nobucket/run", endpoint))
    assert check_folder(at("films/run", endpoint)) is None


def test_an_endpoint_that_does_not_answer_is_said_at_once_and_asked_again_next_time():
    away = at("films/day1", no_one_listens())
    began = time.monotonic()
    with pytest.raises(
        InputError, match=r"no store answers at http://127.0.0.1:\d+ \(Connection refused\): check AWS_"
    ):
        list_inputs([away])
    with pytest.raises(ManifestError, match="no store answers"):
        open_run(away)
    assert time.monotonic() - began < AT_ONCE_S and not stores._answered & {stores.endpoint_of(away)}


def test_the_endpoint_of_the_environment_is_the_one_that_is_asked(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert stores.endpoint_of("s3://films/x") == "http://store:9000"
    assert stores.endpoint_of("gs://films/x") is None and stores.unreachable("/films/x") is None
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert stores.unreachable("s3://films/x") is None, "what lies behind a proxy is the proxy's to find"


def test_outputs_that_cannot_be_written_name_the_place(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ManifestError, match="is a folder; name a file in it"):
        check_file(str(tmp_path))
    for check in (check_file, check_folder):
        with pytest.raises(ManifestError, match="file is no folder; choose another output"):
            check(str(tmp_path / "file" / "below"))
    assert (
        check_folder(str(tmp_path / "new" / "run")) == tmp_path / "new" / "run" and len(list(tmp_path.iterdir())) == 1
    )


def test_a_list_by_another_name_is_said_to_be_one(tmp_path):
    (tmp_path / "films").write_text("day1/a.mp4\nday1/b.mp4\n")
    with pytest.raises(InputError, match=r"a list is told by its suffix, so name it films.txt"):
        list_inputs([str(tmp_path / "films")])
    for name, text in (("stream.m3u8", "#EXTM3U\na.mp4\n"), ("notes", "nothing\n"), ("raw", "a.mp4\0\n")):
        (tmp_path / name).write_text(text)
        assert list_inputs([str(tmp_path / name)]), "a row that says what it is"


def test_an_input_that_is_mistyped_is_answered_with_the_nearest_and_a_run_is_none(tmp_path):
    (tmp_path / "footage").mkdir()
    with pytest.raises(InputError, match=r"no such file or folder; did you mean '.*/footage'\?"):
        list_inputs([str(tmp_path / "fotage")])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="it is a run, name the footage that it was made from"):
        list_inputs([str(tmp_path / "run")])
