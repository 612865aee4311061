"""Our own surface, keys and addresses: fill, score, menu, health, metrics, the page."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import httpx
import pytest
from mdsample_cli.main import main
from mdsample_serve.server import Address
from servers import Here, serving

from mdsample.models.denoiser import Denoiser
from mdsample.sampling.trace import Trace

QUESTION = "Ann has 3 coins and gets 4 more. How many coins does Ann have?"
TEMPLATE = "Question: {prompt}\nReasoning:{reasoning:6}\nAnswer:{answer:4}"
ASKED = {"prompt": QUESTION, "template": TEMPLATE, "policy": "top(2)+temperature(1)", "seed": 4}
KEY = "k" * 24


def printed(*more: str) -> dict[str, object]:
    out = io.StringIO()
    with redirect_stdout(out):
        line = ["run", QUESTION, "-t", TEMPLATE, "-p", "top(2)+temperature(1)", "--seed", "4", "--json", *more]
        assert main(line) == 0
    return json.loads(out.getvalue())


def test_fill_is_the_record_of_run(here: Here) -> None:
    assert here.post("/v1/fill", ASKED).json() == printed()


def test_fill_with_what_is_given_and_a_schema(here: Here, tmp_path: Path) -> None:
    assert here.post("/v1/fill", {**ASKED, "given": {"answer": " 7"}}).json() == printed("--fill", "answer= 7")
    schema = {"type": "object", "properties": {"coins": {"type": "integer", "maximum": 9, "minimum": 0}}}
    schema["required"] = ["coins"]
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    found = here.post("/v1/fill", {**ASKED, "schema": schema}).json()
    assert found == printed("--schema", str(tmp_path / "schema.json"))
    assert found["value"].keys() == {"coins"}


def test_a_stream_of_fill_is_the_trace_and_the_record(here: Here, tmp_path: Path) -> None:
    events = here.events("/v1/fill", {**ASKED, "n": 1, "trace": True})
    assert [event.pop("type") for event in events] == ["header", *["step"] * (len(events) - 2), "record"]
    header, *steps, record = events
    assert record == printed("--trace", str(tmp_path / "trace"))
    head, row, *lines = map(json.loads, (tmp_path / "trace").read_text().splitlines())
    assert {**header, "events": len(steps)}.items() >= head.items()
    assert header["canvas"][0].items() >= row.items()
    assert [{key: step[key] for key in line} for step, line in zip(steps, lines, strict=True)] == lines
    assert Trace.load(tmp_path / "trace").replay().done
    look = steps[1]["look"]
    assert all(0 <= second <= best <= 1 for best, second in zip(look["probability"], look["second"], strict=True))
    named = [n for n, text in enumerate(look["runner"]) if text is not None]
    assert len(named) > len(look["text"]) / 2 and all(look["runner"][n] != look["text"][n] for n in named)
    blank = [place for place, empty in enumerate(row["blank"]) if empty]
    assert set(steps[1]["position"]) <= set(look["position"]) <= set(blank)


def test_several_rows_are_those_of_run(here: Here, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(f"{json.dumps({'prompt': QUESTION})}\n" * 3)
    found = here.post("/v1/fill", {**ASKED, "n": 3}).json()["data"]
    out = io.StringIO()
    with redirect_stdout(out):
        line = ["run", "-i", str(tmp_path / "in.jsonl"), "-t", TEMPLATE, "-p", ASKED["policy"], "--seed", "4", "--json"]
        assert main([str(word) for word in line]) == 0
    assert found == [json.loads(line) for line in out.getvalue().splitlines()]


def test_score_is_what_score_prints(here: Here) -> None:
    labels = {"answer": [" 7", " 9"], "reasoning": [" 3 + 4"]}
    found = here.post("/v1/score", {"prompt": QUESTION, "template": TEMPLATE, "labels": labels}).json()
    out = io.StringIO()
    with redirect_stdout(out):
        choices = ["--choices", "answer= 7, 9", "--choices", "reasoning= 3 + 4"]
        assert main(["score", QUESTION, "-t", TEMPLATE, *choices, "--method", "marginals", "--json"]) == 0
    said = json.loads(out.getvalue())
    assert found["slots"] == said["slots"] and found["nfe"] == said["nfe"] == 1
    assert found["method"] == said["method"]
    assert here.post("/v1/score", {"prompt": "", "labels": {"x": ["a"]}}).status_code == 400


def test_menu_and_explanations(here: Here) -> None:
    menu = here.get("/v1/policies").json()
    parts = {part["name"]: part for seat in menu["seats"] for part in seat["parts"]}
    assert parts["top"]["settings"][0]["name"] and parts["top"]["doc"]
    assert any(preset["parts"] for preset in menu["presets"])
    told = here.post("/v1/explain", {"policy": "med(0.2)+early-exit"}).json()
    assert "stop" in {part["seat"] for part in told["parts"]} and "early-exit" in told["text"]
    assert here.post("/v1/explain", {}).json()["why"]
    assert not any("language" in part for part in told["parts"])
    text = "integer(min=20,max=25)+top(3)"
    told = here.post("/v1/explain", {"policy": text}).json()
    with redirect_stdout(io.StringIO()) as out:
        assert main(["explain", text, "--model", "tiny-gsm", "--json"]) == 0
    counted, said = (
        [part["language"] for part in parts if "language" in part]
        for parts in (told["parts"], json.loads(out.getvalue())["seats"])
    )
    assert counted == said == [{"states": 4, "classes": 5, "shortest": 2, "longest": 3}]
    assert "Over this model's tokens: 4 states, 5 classes." in told["text"]
    assert here.post("/v1/explain", {"policy": "top(1)", "model": "another"}).status_code == 404
    refused = here.post("/v1/explain", {"policy": "medd"})
    assert refused.status_code == 400 and "did you mean" in refused.json()["error"]["message"]


def test_health_metrics_and_pages(here: Here) -> None:
    assert here.get("/healthz").json() == {"status": "alive"}
    assert here.get("/readyz").json() == {"status": "ready"}
    here.post("/v1/fill", ASKED)
    text = here.get("/metrics").text
    for name in (
        "requests_total",
        "rows_in_flight",
        "rows_per_pass",
        "passes_per_row",
        "queue_seconds",
        "tokens_total",
    ):
        assert f"mdsample_{name}" in text
    assert "mdsample_error_bound_nats_count" in text
    assert "/v1/fill" in here.get("/openapi.json").json()["paths"]
    docs = here.get("/docs")
    assert "<script" not in docs.text and "POST /v1/fill" in docs.text
    page = here.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for answer in (docs, page, here.get("/v1/models"), here.get("/nowhere")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert here.get("/../pyproject.toml").status_code == 404
    assert here.get("/%2e%2e/server.py").status_code == 404


def test_other_addresses_need_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", ""):
        assert "a key is needed" in Address(host=host).fault()
        assert not Address(host=host, keys=[KEY.encode()]).fault()
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert not Address(host=host).fault()
    assert "a key is needed" in Address(origins=["*"]).fault()


def test_keys(tiny_gsm: Denoiser) -> None:
    with serving(tiny_gsm, keys=[b"x" * 16, KEY.encode()]) as here:
        assert here.get("/v1/models").json()["error"]["type"] == "authentication_error"
        for wrong in ("Bearer", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[1:]}", "Bearer é"):
            answer = here.get("/v1/models", headers={"Authorization": wrong.encode()})
            assert answer.status_code == 401, wrong
        right = {"Authorization": f"Bearer {KEY}"}
        assert here.get("/v1/models", headers=right).status_code == 200
        assert here.get("/metrics").status_code == here.post("/v1/fill", ASKED).status_code == 401
        assert here.get("/").status_code == here.get("/healthz").status_code == here.get("/readyz").status_code == 200


def test_a_page_of_a_stranger_does_not_get_here(here: Here, tiny_gsm: Denoiser) -> None:
    strange = {"Origin": "https://evil.example"}
    assert here.post("/v1/fill", ASKED, headers=strange).status_code == 403
    assert here.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert here.get("/v1/models", headers={"Origin": here.url}).status_code == 200
    assert "access-control-allow-origin" not in here.get("/v1/models").headers
    with serving(tiny_gsm, origins=["https://good.example"]) as open_one:
        good = {"Origin": "https://good.example"}
        answer = open_one.get("/v1/models", headers=good)
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        asks = {**good, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        assert httpx.options(f"{open_one.url}/v1/fill", headers=asks).status_code == 200
        assert open_one.get("/v1/models", headers=strange).status_code == 403


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--host", "0.0.0.0"], "a key is needed"),
        (["--key-file", "nothing-there"], "nothing-there"),
        (["-m", "a=tiny-gsm", "-m", "a=tiny-sudoku"], "two models called 'a'"),
        (["-m", "=x"], "NAME=MODEL"),
        (["-m", "a=tiny-gsm", "-m", "tiny-sudoku", "--revision", "x"], "--revision is that of one model"),
    ],
)
def test_what_serve_refuses(capsys: pytest.CaptureFixture[str], line: list[str], said: str) -> None:
    assert main(["serve", "--port", "0", *line]) != 0
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", str(here.port), "--model", "./nothing-there"]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen on port {here.port} of 127.0.0.1: address already in use; give another --port" in said
    assert "nothing-there" not in said
    assert main(["serve", "--host", "::1%nowhere", "--port", "0", "--model", "./nothing-there"]) != 0
    assert "nothing-there" not in capsys.readouterr().err


def test_key_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, said in (("# none\n\n", "holds no key"), ("short\n", "shorter than 16 characters")):
        (tmp_path / "keys").write_text(data)
        assert main(["serve", "--port", "0", "--key-file", str(tmp_path / "keys")]) == 2
        assert said in capsys.readouterr().err
