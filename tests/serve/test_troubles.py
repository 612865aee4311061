"""What goes wrong: bodies, sockets, queues, passes; the server answers the next request each time."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import evolve
from mdsample_serve import asking, openai
from mdsample_serve.limits import Limits
from servers import Here, serving

from mdsample.models.denoiser import Denoiser
from mdsample.policy import menu

OK: dict[str, Any] = {"prompt": "Ann has 3 coins", "max_tokens": 2, "seed": 1}
LIMITS = Limits(
    body=20_000,
    queue=6,
    rows=5,
    blanks=300,
    seconds=60,
    patience=2,
    heartbeat=0.1,
    compile=1,
    remasked=50,
    guesses=4,
)


@pytest.fixture(scope="module")
def here(tiny_gsm: Denoiser) -> Iterator[Here]:
    with serving(tiny_gsm, limits=LIMITS) as running:
        yield running


@pytest.fixture(autouse=True)
def and_then_it_answers(here: Here) -> Iterator[None]:
    yield
    here.model.poison = None
    here.model.gate.set()
    assert here.idle()
    assert here.post("/v1/completions", OK).status_code == 200
    assert here.get("/healthz").status_code == 200


def refused(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert error["message"] and "Traceback" not in error["message"]
    return error["message"]


RAW = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b'{"prompt": "\xff"}', b"{}{}", b"\x00" * 10,
    b"[" * 15_000, b'{"a":' * 3_000, b'{"prompt": NaN}', b'{"max_tokens": ' + b"9" * 6_000 + b"}", b"prompt=x",
    b'{"prompt": "\\ud800"}', b'{"prompt": ["a", "\\udfff"]}',
]  # fmt: skip
BODIES: list[dict[str, Any]] = [
    {"prompt": 1}, {"prompt": [[1, "a"]]}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [-1]}, {"prompt": [10**9]},
    {"prompt": [10**30]}, {"prompt": ["x", 1]}, {"prompt": None}, {"max_tokens": 0}, {"max_tokens": -1},
    {"max_tokens": "3"}, {"max_tokens": True}, {"max_tokens": 2.5}, {"max_tokens": 301}, {"max_tokens": 10**18},
    {"n": 0}, {"n": 6}, {"n": 10**9}, {"seed": -1}, {"seed": 2**70}, {"seed": "1"}, {"temperature": -1},
    {"temperature": 3}, {"temperature": "hot"}, {"top_p": 0}, {"stop": [""]}, {"stop": ["x"] * 99}, {"stop": 3},
    {"logprobs": 3}, {"best_of": 2}, {"presence_penalty": 0.5}, {"frequency_penalty": -1}, {"logit_bias": {"5": 10}},
    {"logit_bias": {"x": -100}}, {"logit_bias": {"999999": -100}}, {"store": True}, {"unknown": 1},
    {"stream_options": {"include_obfuscation": True}}, {"policy": "medd"}, {"policy": ""}, {"policy": " "},
    {"policy": "temperature(1)", "temperature": 1}, {"policy": "regex('(')"}, {"policy": "ban('')"},
    {"template": "{"}, {"template": "{a}"}, {"template": "{a}{b:3}", "prompt": ["x", "y"], "n": 4},
    {"template": "{a:99999999}"}, {"template": "{prompt}{x:3}", "suffix": "x"}, {"template": "{a}{b}{x:3}"},
    {"slots": {"x": 3}}, {"template": "{prompt}{x:3}", "slots": {"y": 1}}, {"regex": "(a"}, {"regex": r"(?=a)b"},
    {"given": {"zzz": "a"}}, {"speculate": 99}, {"speculate": "x"}, {"speculate": 0}, {"regex": "[0-9]{9}"},
    {"policy": "revise-tokens(0.5, budget=1000000)"}, {"policy": "lookahead(1000)"}, {"trace": "yes"},
    {"suffix": "x", "prompt": [5, 6]}, {"echo": True, "prompt": [5, 6]},
]  # fmt: skip
CHATS: list[dict[str, Any]] = [
    {}, {"messages": []}, {"messages": "hi"}, {"messages": [{"role": "user"}]},
    {"messages": [{"role": "tool", "content": ""}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    {"tools": [{"type": "function"}]}, {"tool_choice": "required"}, {"functions": [{}]}, {"top_logprobs": 2},
    {"modalities": ["audio"]}, {"reasoning_effort": "high"}, {"response_format": {"type": "xml"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "$ref": "http://x/y"}}}},
    {"response_format": {"type": "json_object"}, "regex": "a"}, {"max_tokens": 3, "max_completion_tokens": 4},
    {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
]  # fmt: skip


def test_bodies_that_are_none(here: Here) -> None:
    with httpx.Client(base_url=here.url) as client:
        for raw in RAW:
            refused(client.post("/v1/completions", content=raw, headers={"content-type": "application/json"}))
        for sent, got in (({"content-type": "text/plain"}, "got 'text/plain'"), ({}, "none was sent")):
            said = refused(client.post("/v1/completions", content=b'{"prompt": "secret-42"}', headers=sent))
            assert said == f"the body must be sent as Content-Type: application/json; {got}"
        assert refused(client.post("/v1/completions", json="secret-42")) == "the body must be a JSON object; got a text"
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = client.request(method, "/v1/completions")
            assert "send POST" in refused(answer, 405) and answer.headers["allow"] == "POST"
            answer = client.request(method if method != "GET" else "POST", "/v1/models/tiny")
            assert "send GET" in refused(answer, 405) and answer.headers["allow"] == "GET"
            refused(client.request(method, "/v1/nothing"), 404)
        assert client.head("/v1/completions").headers["allow"] == "POST"
        assert client.put("/").headers["allow"] == "GET, HEAD"
        refused(client.get("/nothing"), 404)
        assert "did you mean 'tiny'" in refused(client.post("/v1/completions", json={**OK, "model": "tin"}), 404)
        for path in ("../../etc/passwd", "/etc", "GSAI-ML/LLaDA-8B", "tiny@main"):
            refused(client.post("/v1/completions", json={**OK, "model": path}), 404)


def test_bodies_that_cannot_be_honoured(here: Here) -> None:
    passes = len(here.model.passes)
    with httpx.Client(base_url=here.url, timeout=30) as client:
        for body in BODIES:
            refused(client.post("/v1/completions", json={**OK, **body}))
            refused(client.post("/v1/completions", json={**OK, **body, "stream": True}))
        message = {"messages": [{"role": "user", "content": "x"}]}
        for body in CHATS:
            refused(client.post("/v1/chat/completions", json={**message, **body} if body else {}))
        for body in (
            {"prompt": "x", "fields": {}},
            {"schema": {"type": "nothing"}},
            {"template": "{p}{x:2}"},
            {"n": 9},
        ):
            refused(client.post("/v1/fill", json=body))
    assert len(here.model.passes) == passes, "all of it is refused before the first pass"


HALF = "\ud800"


def as_schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


#: a path, a body, the field that is wrong and words of the message
BLAMED: list[tuple[str, dict[str, Any], str, str]] = [
    ("fill", {"slots": {"answer": {"length": 4, "choices": []}}}, "slots", "slot 'answer' are an empty list"),
    ("fill", {"slots": {"answer": {"choices": ["7", ""]}}}, "slots", "slot 'answer' hold an empty text"),
    ("fill", {"slots": {"answer": {"regex": ""}}}, "slots", "not empty"),
    ("fill", {"slots": {"answer": {"regex": "(7"}}}, "slots", "'(7' is not a regular expression"),
    ("completions", {"template": "{prompt}{a:2}", "slots": {"a": {"choices": [""]}}}, "slots", "hold an empty text"),
    ("completions", {"regex": ""}, "regex", "not empty"),
    ("completions", {"regex": "(7"}, "regex", "'(7' is not a regular expression"),
    ("completions", {"policy": "medd"}, "policy", "did you mean"),
    ("completions", {"policy": "early-exit(slot='x')"}, "policy", "there is no such slot"),
    ("fill", {"policy": "choices(['7'],slot='x')"}, "policy", "there is no slot 'x'"),
    ("chat/completions", {"policy": "characters('\u1234')"}, "policy", "no token made of these"),
    ("completions", {"template": "{"}, "template", "a single '{'"),
    ("fill", {"template": "{"}, "template", "a single '{'"),
    ("explain", {"template": "{"}, "template", "a single '{'"),
    ("explain", {"policy": "medd"}, "policy", "did you mean"),
    ("explain", {"policy": r"choices(['\ud800'])"}, "policy", "the policy's part choices holds U+D800"),
    ("completions", {"policy": r"until(['\ud800'])"}, "policy", "the policy's part until holds U+D800"),
    ("explain", {"policy": f"choices(['{HALF}'])"}, "policy", "U+D800"),
    ("fill", {"schema": {"enum": ["a", HALF]}}, "schema", "U+D800"),
    ("fill", {"schema": {"properties": {HALF: {}}}}, "schema", "U+D800"),
    ("fill", {"schema": None}, "schema", "a schema is a JSON object; got null"),
    ("fill", {"schema": 3}, "schema", "a schema is a JSON object; got 3"),
    ("fill", {"schema": {"type": "nothing"}}, "schema", "nothing"),
    ("chat/completions", {"response_format": as_schema(None)}, "response_format", "got null"),
    ("chat/completions", {"response_format": as_schema({"type": "nothing"})}, "response_format", "nothing"),
    ("completions", {"max_tokens": 10**12}, "max_tokens", "max_tokens is 1,000,000,000,000; this server fills 300"),
    ("completions", {"max_tokens": 301, "suffix": "x"}, "max_tokens", "max_tokens is 301"),
    ("completions", {"logit_bias": {"5": float("nan")}}, "logit_bias", "from -100 to 100; got nan"),
    ("completions", {"logit_bias": {"5": float("-inf")}}, "logit_bias", "from -100 to 100; got -inf"),
    ("chat/completions", {"logit_bias": {"5": float("inf")}}, "logit_bias", "from -100 to 100; got inf"),
    ("completions", {"logit_bias": {"5": -100, "6": -101}}, "logit_bias", "from -100 to 100; got -101"),
    ("completions", {"stop": ["x", HALF]}, "stop", "U+D800"),
    ("score", {"template": "{prompt}{a:2}", "labels": {"a": ["7", HALF]}}, "labels", "U+D800"),
    ("score", {"template": "{", "labels": {"a": ["7"]}}, "template", "a single '{'"),
    ("score", {"labels": {"a": ["7"]}}, "labels", "not a slot"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "param", "said"), BLAMED)
def test_what_is_wrong_is_told_of_its_field(
    here: Here, path: str, body: dict[str, Any], param: str, said: str, stream: bool
) -> None:
    prompt = {"explain": {}, "chat/completions": {"messages": [{"role": "user", "content": "x"}]}}
    sent = {**prompt.get(path, {"prompt": "x"}), **body}
    if path not in ("explain", "score"):
        sent["stream"] = stream
    answer = httpx.post(f"{here.url}/v1/{path}", content=json.dumps(sent), headers={"content-type": "application/json"})
    assert said in refused(answer)
    assert answer.json()["error"]["param"] == param


def test_a_fault_that_nobody_expected(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise ValueError("secret-42")

    for path, place in (("/v1/completions", asking), ("/v1/explain", menu)):
        with monkeypatch.context() as patch:
            patch.setattr(place, "completion" if place is asking else "explain", breaks)
            caplog.clear()
            broken = here.post(path, OK if place is asking else {"policy": "med"})
        said = refused(broken, 500)
        assert "the server failed" in said and "secret" not in said
        assert broken.json()["error"]["type"] == "server_error"
        until = time.monotonic() + 10
        while "secret-42" not in caplog.text and time.monotonic() < until:  # the answer comes before the log
            time.sleep(0.01)
        assert "Traceback" in caplog.text and "secret-42" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(openai, "finished", breaks)
        caplog.clear()
        events = here.events("/v1/completions", OK)
    assert events[-1]["type"] == "error" and events[-1]["error"]["type"] == "server_error"
    assert "secret" not in json.dumps(events) and "secret-42" in caplog.text


def test_a_body_that_is_too_large_or_never_comes(here: Here) -> None:
    assert "more than 20,000 bytes" in refused(here.post("/v1/completions", {"prompt": "x" * 20_000}), 413)

    def endless() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(30):
            yield b"x" * 1_000

    with httpx.Client(timeout=30) as client:
        refused(client.post(f"{here.url}/v1/completions", content=endless()), 413)
    with socket.create_connection(("127.0.0.1", here.port)) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        assert b" 408 " in slow.recv(4096)


def test_half_open_sockets(here: Here) -> None:
    sockets = [socket.create_connection(("127.0.0.1", here.port)) for _ in range(60)]
    for number, half in enumerate(sockets):
        half.sendall([b"", b"POST /v1/", b"GET / HTTP/1.1\r\nHost: x", b"\x16\x03\x01", b"\r\n\r\n"][number % 5])
    assert here.post("/v1/completions", OK).status_code == 200
    for half in sockets:
        half.settimeout(5)
        while half.recv(4096):  # an answer to what was no request, then the end
            pass
        half.close()


def test_a_reader_that_takes_nothing_is_let_go(here: Here) -> None:
    body = json.dumps(
        {"prompt": "x", "template": "{prompt}{x:200}", "policy": "one-by-one", "trace": True, "stream": True, "n": 5}
    )
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.connect(("127.0.0.1", here.port))
        head = "POST /v1/fill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        deaf.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert here.post("/v1/completions", OK).status_code in (200, 429)
        assert here.idle()


def test_a_full_queue(here: Here) -> None:
    here.model.gate.clear()
    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(here.post, "/v1/completions", {**OK, "n": 2}) for _ in range(8)]
        time.sleep(0.5)
        full = here.post("/v1/completions", OK)
        assert "6 rows are being answered" in refused(full, 429)
        assert 1 <= int(full.headers["retry-after"]) <= 60
        here.model.gate.set()
        statuses = sorted(each.result().status_code for each in waiting)
    assert statuses == [200] * 3 + [429] * 5


def test_a_pass_that_fails_fails_no_other_request(here: Here, tiny_gsm: Denoiser) -> None:
    (here.model.poison,) = tiny_gsm.tokenizer.encode("7")
    fine = {**OK, "max_tokens": 4, "policy": "one-by-one"}
    alone = here.post("/v1/completions", fine).json()["choices"]
    here.model.gate.clear()
    threading.Timer(0.6, here.model.gate.set).start()
    with ThreadPoolExecutor(4) as pool:
        # the first one waits in a pass of its own, the others meet in the next
        bad = [pool.submit(here.post, "/v1/completions", {**fine, "prompt": "7"}) for _ in range(2)]
        good = [pool.submit(here.post, "/v1/completions", fine) for _ in range(2)]
        for each in bad:
            assert "the model failed" in refused(each.result(), 500)
        assert [each.result().json()["choices"] for each in good] == [alone, alone]
    broken = here.events("/v1/completions", {**fine, "prompt": "7"})
    assert broken[-1]["error"]["type"] == "server_error"


def test_a_fault_of_the_worker_ends_what_runs_and_nothing_else(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = next(iter(here.service.models.values())).worker
    monkeypatch.setattr(worker._turns, "next", lambda: 1 / 0)
    assert "the server failed" in refused(here.post("/v1/completions", OK), 500)


def test_patterns_that_would_run_for_ever(here: Here) -> None:
    nasty = "(" * 6 + "a|b|c" + "){1,40}" * 6
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(here.post, "/v1/completions", {**OK, "regex": nasty})
        time.sleep(0.1)
        assert here.post("/v1/completions", OK).status_code == 200
        assert not bad.done(), "others do not wait for them"
        refused(bad.result())


def test_a_request_that_takes_too_long(tiny_gsm: Denoiser) -> None:
    with serving(tiny_gsm, limits=evolve(LIMITS, seconds=0.5)) as impatient:
        impatient.model.gate.clear()
        threading.Timer(0.7, impatient.model.gate.set).start()
        assert "took too long" in refused(impatient.post("/v1/completions", {**OK, "max_tokens": 20}), 504)


def test_a_silent_stream_says_that_it_is_there(here: Here) -> None:
    here.model.gate.clear()
    threading.Timer(0.5, here.model.gate.set).start()
    text = here.post("/v1/completions", {**OK, "stream": True}).text
    assert ": still here" in text and text.endswith("data: [DONE]\n\n")


def test_a_request_of_many_rows_keeps_nobody_out(here: Here) -> None:
    long = {**OK, "prompt": "x", "n": 4, "max_tokens": 30, "policy": "one-by-one"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.post, "/v1/completions", long)
        time.sleep(0.2)
        assert here.post("/v1/completions", OK).status_code == 200
        assert not waiting.done()
        assert waiting.result().status_code == 200


def test_prompts_are_not_logged(
    here: Here, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    here.model.poison = 1
    for body in (OK, {**OK, "policy": "secret-42"}, {**OK, "prompt": "secret-42", "max_tokens": 10}):
        here.post("/v1/completions", {**body, "user": "secret-42", "prompt": "secret-42"})
    out = capfd.readouterr()
    assert "secret-42" not in caplog.text + out.out + out.err


def start(port: str = "0") -> tuple[subprocess.Popen[str], str]:
    line = [sys.executable, "-m", "mdsample_cli", "serve", "--port", port]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().strip() == "tiny-gsm: tiny-gsm on reference"
    return process, process.stderr.readline().strip()


def test_a_killed_server_starts_again_and_a_signal_ends_it_gracefully() -> None:
    body = {"prompt": "x", "max_tokens": 20, "policy": "one-by-one", "seed": 1}
    killed, url = start()
    with killed, ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{url}/v1/completions", json={**body, "max_tokens": 400}, timeout=60)
        time.sleep(0.2)
        killed.kill()
        with pytest.raises(httpx.HTTPError):
            running.result()
    ended, again = start(url.rpartition(":")[2])
    assert again == url
    with ended:
        with httpx.stream("POST", f"{url}/v1/completions", json={**body, "stream": True, "trace": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            ended.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]" and sum('"canvas"' in line for line in rest) > 20
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        assert ended.wait(20) in (0, -signal.SIGTERM)
        assert ended.stderr is not None and ended.stderr.read() == ""


def test_no_request_names_a_file(here: Here, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{prompt}{x:2}")
    said = refused(here.post("/v1/fill", {"prompt": "x", "template": f"@{tmp_path}/t.txt"}))
    assert "slot" in said
