"""The page in a browser, against a running server: what a person types, sees, compares, copies and saves."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import browser, page_of, serious
from servers import Here, serving

import mdsample
from mdsample.models.denoiser import Denoiser

PROMPT = "Ann has 12 apples. Ben has 30 more than Ann. How many apples does Ben have?"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


def run(page: Any, policy: str, prompt: str = PROMPT) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Policy", exact=True).fill(policy)
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Run").wait_for()


def facts(page: Any, place: int = 0) -> dict[str, str]:
    return (
        page.locator(".facts")
        .nth(place)
        .evaluate(
            "list => Object.fromEntries([...list.children].map((x) => [...x.children].map((y) => y.textContent)))"
        )
    )


def written(page: Any, place: int = 0) -> str:
    """The text of the canvas; blanks and ends are left out."""
    text: str = page.locator(".canvas").nth(place).inner_text()
    return text.replace("\u00a0", "").replace("·", "")


def test_a_prompt_is_typed_and_the_text_comes(chromium: Any, here: Here, tiny_gsm: Denoiser) -> None:
    row = mdsample.sample(tiny_gsm, PROMPT, policy="top(8)", seed=3)
    with page_of(chromium, here.url) as page:
        page.get_by_label("Seed").fill("3")
        run(page, "top(8)")
        shown = facts(page)
        assert shown["step"] == f"{row.steps} of {row.steps}" and shown["passes"] == str(row.nfe)
        assert float(shown["error bound"].split()[0]) == pytest.approx(row.error_bound, rel=0.01)
        assert float(shown["TV bound"]) == pytest.approx(row.tv_bound, rel=0.01)
        assert row.slots["answer"] in written(page).partition("Answer:")[2]
        # the keyboard leads to a token, and from step to step
        page.get_by_role("listbox").focus()
        page.keyboard.press("Home")
        first = min(row.commits, key=lambda commit: commit.position)
        about = page.locator(".readout").inner_text()
        assert f"position {first.position} in reasoning" in about and f"step {first.step + 1}" in about
        assert f"{first.probability:.3f}" in about and "2nd “" in about
        page.get_by_role("button", name="First step").click()
        assert facts(page)["filled"] == "0 of 100" and "blank" in page.locator(".readout").inner_text()
        page.get_by_label("Step", exact=True).press("ArrowRight")
        assert facts(page)["step"].startswith("1 of") and page.locator(".canvas .new").count() > 0
        page.get_by_label("certainty").check()
        page.get_by_label("Steps a second").select_option("32")
        page.get_by_role("button", name="Play").click()
        page.get_by_text(f"{row.steps} / {row.steps}").wait_for()
        assert page.get_by_role("button", name="Play").is_visible()


def test_two_policies_are_compared_saved_and_opened_again(chromium: Any, here: Here, tmp_path: Path) -> None:
    with page_of(chromium, here.url, accept_downloads=True) as page:
        page.get_by_label("compare two policies").check()
        page.get_by_label("Policy B", exact=True).fill("above-confidence(0.1)+below-confidence(0.5,limit=9)")
        run(page, "med+early-exit")
        assert page.locator(".canvas").count() == 2
        assert facts(page, 1)["error bound"].startswith("none")
        before = [written(page, place) for place in (0, 1)]
        page.locator(".canvas").nth(1).locator(".written").first.hover()
        assert page.locator(".chosen").count() == 2, "a token is chosen in both"
        page.mouse.move(0, 0)
        assert serious(page) == []
        with page.expect_download() as saving:
            page.get_by_role("button", name="Save").click()
        saving.value.save_as(tmp_path / "run.html")
    with page_of(chromium, color_scheme="dark", viewport={"width": 390, "height": 844}) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "run.html").as_uri())
        assert [written(page, place) for place in (0, 1)] == before
        assert len(asked) == 1, "a saved file asks the network for nothing"
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a phone"


def test_parts_are_chosen_from_the_menu(chromium: Any, here: Here) -> None:
    with page_of(chromium, here.url, color_scheme="dark") as page:
        page.get_by_label("Policy", exact=True).fill("med+early-exit")
        page.get_by_text("Choose parts").first.click()
        page.get_by_label("Part or preset").first.select_option("below-entropy")
        page.locator(".described").first.get_by_label(re.compile("^entropy")).fill("0.4")
        page.get_by_role("button", name="Put into the policy").first.click()
        text: str = page.get_by_label("Policy", exact=True).input_value()
        assert "below-entropy(entropy=0.4)" in text and "early-exit" in text and mdsample.parse(text)
        page.get_by_text("What it does").locator("visible=true").first.click()
        page.get_by_text("multi-token entropy decoding").nth(1).wait_for()
        assert serious(page) == []
        page.get_by_role("button", name="Remove early-exit").click()
        assert "early-exit" not in page.get_by_label("Policy", exact=True).input_value()


def test_a_part_takes_the_seat_of_another(chromium: Any, here: Here) -> None:
    menu = here.get("/v1/policies").json()
    entries = [(seat["seat"], entry) for seat in menu["seats"] for entry in seat["parts"] if not seat["many"]]
    plain = [entry["name"] for _, entry in entries if all(setting["default"] for setting in entry["settings"])]
    with page_of(chromium, here.url) as page:
        texts = page.evaluate(
            "async ([menu, names, texts]) => { const { withPart } = await import('./policy.js');"
            "return texts.flatMap((text) => names.map((name) => withPart(text, name, menu))); }",
            [menu, plain, ["", "med", "llada+early-exit", "top(2)+greedy+ban([3,'a'])"]],
        )
    for text in texts:
        try:
            mdsample.parse(text)
        except mdsample.PolicyError as fault:
            assert "p2" in text, fault  # a plan of two parts


def test_errors_are_sentences_and_a_run_can_be_cancelled(chromium: Any, here: Here) -> None:
    with page_of(chromium, here.url) as page:
        page.get_by_text("Template", exact=True).click()
        page.get_by_label("Template", exact=True).fill("{prompt} costs {price} and {answer:4}")
        page.get_by_label("price").fill("3")
        assert page.get_by_label("price").is_visible()
        here.model.gate.clear()
        page.get_by_label("Prompt").fill("it")
        page.get_by_role("button", name="Run").click()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("cancelled").wait_for()
        here.model.gate.set()
        assert here.idle(), "a request that was cancelled leaves the queue"
        run(page, "", "it")
        assert page.locator(".canvas").inner_text().startswith("it costs 3 and")
    # Chromium notes answers of 400 in the console by itself
    with pytest.raises(AssertionError, match="400"), page_of(chromium, here.url) as page:
        page.get_by_label("Policy", exact=True).fill("med(2")
        page.locator(".fault").wait_for()
        assert "expected" in page.locator(".fault").inner_text()
        run(page, "med+nothing")
        assert "unknown policy 'nothing'" in page.get_by_role("alert").inner_text()
        assert serious(page) == []


def test_what_is_copied_does_the_same(chromium: Any, here: Here, tiny_gsm: Denoiser) -> None:
    prompt = 'It\'s "Ann" with 2 apples\\. </script> How many?'
    with page_of(chromium, here.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        run(page, "top(20)", prompt)
        shown = written(page)

        def copied(name: str) -> str:
            page.get_by_role("button", name=f"Copy {name}").click()
            page.get_by_text("copied").wait_for()
            return page.evaluate("navigator.clipboard.readText()")

        assert copied("policy") == "top(20)"
        command = shlex.split(copied("curl"))
        assert command[0] == "curl" and command[1] == f"{here.url}/v1/fill"
        record = here.post("/v1/fill", json.loads(command[command.index("-d") + 1])).json()
        assert record["prompt"] == prompt
        lines = copied("Python").replace('mdsample.load("tiny")', "model")
        found: dict[str, Any] = {"model": tiny_gsm}
        exec(lines.replace("print(row.text)", ""), found)
        assert found["row"].text == record["text"]
        answer = re.escape(record["slots"]["answer"])
        assert re.search(rf"Answer: ?{answer}", shown)


def test_a_key_is_asked_for(chromium: Any, tiny_gsm: Denoiser) -> None:
    key = "a key of sixteen letters"
    noted = pytest.raises(AssertionError, match="401")  # by Chromium itself
    with serving(tiny_gsm, keys=[key.encode()]) as here, noted, page_of(chromium, here.url) as page:
        page.get_by_text("asks for a key").wait_for()
        page.get_by_label("Key").fill(key)
        page.get_by_label("Key").press("Tab")
        page.get_by_text("asks for a key").wait_for(state="hidden")
        run(page, "med+early-exit")
        assert "42" in written(page)
