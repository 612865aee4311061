"""lm-evaluation-harness with mdsample as its model, offline, on tasks of a few local lines."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

harness = pytest.importorskip("lm_eval", reason="the harness is missing: pip install 'mdsample[eval]'")

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from mdsample_cli.main import main
from mdsample_integrations.lm_eval import Mdsample

import mdsample
from mdsample.errors import MdsampleError, ModelError, PolicyError, SpecError, TemplateError
from mdsample.evaluation.bench import bench
from mdsample.scoring.methods import ChainRule
from mdsample.tasks.catalog import TASKS

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the harness's own
    pytest.mark.slow,
]
PROBLEMS = 6
POLICY = "med(0.2,k=6)+early-exit(0.1,slot='answer')"
GENERATE = """
task: local_gsm
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/gsm.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], do_sample: false, max_gen_toks: 24}
filter_list:
  - name: last
    filter:
      - {function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CHOOSE = """
task: local_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: "{{right}}"
doc_to_choice: ["3", "12", "4. Then"]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLL = """
task: local_perplexity
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: byte_perplexity}
"""
CHOICES = ("3", "12", "4. Then")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    problems = TASKS["tiny-gsm"].read()[:PROBLEMS]
    lines = [{"question": problem.texts["prompt"], "answer": problem.answer} for problem in problems]
    (folder / "gsm.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"text": "1 + 2 =", "right": 0}, {"text": "Ann has 12 coins. 6 + 6 = ", "right": 1}]
    (folder / "choice.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, task in (("gsm", GENERATE), ("choose", CHOOSE), ("roll", ROLL)):
        (folder / f"{name}.yaml").write_text(task.replace("FOLDER", str(folder)))
    return folder


def evaluate(folder: Path, tasks: str, **arguments: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return harness.simple_evaluate(
        model=Mdsample(**arguments), tasks=[tasks], task_manager=manager, bootstrap_iters=0, log_samples=True
    )


def request(context: str, options: dict[str, Any], document: int = 0, repeats: int = 1) -> Instance:
    return Instance("generate_until", {}, (context, options), 0, ("task", document, repeats))


def test_bench_and_the_harness_agree_row_by_row(folder: Path) -> None:
    found = evaluate(folder, "local_gsm", policy=POLICY, template="own")
    samples = found["samples"]["local_gsm"]
    model, task = mdsample.load("tiny-gsm"), TASKS["tiny-gsm"]
    (score,) = bench(model, task, [mdsample.parse(POLICY)], limit=PROBLEMS)
    prompts = [problem.texts["prompt"] for problem in task.read()[:PROBLEMS]]
    rows = mdsample.sample(model, prompts, policy=POLICY)
    for sample, row, problem in zip(samples, rows, task.read(), strict=False):
        assert sample["resps"] == [[row.text]]
        assert sample["exact_match"] == task.correct(row, problem)
        (facts,) = sample["arguments"][0][1]["mdsample"]
        assert facts == {key: row.to_dict()[key] for key in facts} and facts["nfe"] == row.nfe
    assert found["results"]["local_gsm"]["exact_match,last"] == score.accuracy.value


def test_choices_and_texts_are_scored_as_score_scores_them(folder: Path) -> None:
    model = mdsample.load("tiny-gsm")
    samples = evaluate(folder, "local_choice", pretrained=model, likelihood="chain")["samples"]["local_choice"]
    for sample in samples:
        for (context, continuation, facts), (answer,) in zip(sample["arguments"], sample["resps"], strict=True):
            kept = context.rstrip()
            text = context[len(kept) :] + continuation
            length = len(model.tokenizer.encode(kept + text)) - len(model.tokenizer.encode(kept))
            template = mdsample.Template.parse(f"{{prompt}}{{answer:{length}}}")
            (scored,) = mdsample.score(model, template, [{"prompt": kept}], "answer", [text], method=ChainRule())
            # other texts beside it in the batch: float32 sums in another order
            assert answer[0] == pytest.approx(scored.best.log_probability, rel=1e-5, abs=1e-5)
            assert facts["mdsample"]["nfe"] == length
    (text,) = evaluate(folder, "local_perplexity", pretrained=model)["samples"]["local_perplexity"][:1]
    length = len(model.tokenizer.encode("1 + 2 ="))
    template = mdsample.Template.parse(f"{{prompt}}{{answer:{length}}}")
    (scored,) = mdsample.score(model, template, [{"prompt": ""}], "answer", ["1 + 2 ="])
    assert text["resps"][0][0] == pytest.approx(scored.best.log_probability, abs=1e-4)
    assert text["arguments"][0][1]["mdsample"]["nfe"] == length


def test_auto_takes_the_bound_where_it_is_cheaper_and_one_method_a_question() -> None:
    model = Mdsample(samples=2)
    texts = [Instance("loglikelihood", {}, ("1 + 2 =", text), n, ("task", 0, 1)) for n, text in enumerate(CHOICES)]
    model.loglikelihood(texts)
    # the longest choice is longer than two passes, so all three take the bound
    assert [text.args[2]["mdsample"]["nfe"] for text in texts] == [2, 2, 2]
    single = [Instance("loglikelihood", {}, ("1 + 2 =", " 3"), 0, ("task", 0, 1))]
    model.loglikelihood(single)
    assert single[0].args[2]["mdsample"]["standard_error"] == 0


def test_stop_strings_spare_passes_and_change_nothing_before_them() -> None:
    model = Mdsample(policy="ar-med")
    prompt = "Question: Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?\nReasoning:"
    whole, cut = request(prompt, {"max_gen_toks": 24}), request(prompt, {"max_gen_toks": 24, "until": ["."]})
    (full,), (short,) = model.generate_until([whole]), model.generate_until([cut])
    assert "." in full and short == full.partition(".")[0]
    assert cut.args[1]["mdsample"][0]["nfe"] < whole.args[1]["mdsample"][0]["nfe"]


def test_a_text_depends_on_seed_and_document_only() -> None:
    options = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    first, other = Mdsample(policy="entropy+top(2)"), Mdsample(policy="entropy+top(2)", batch_size=2)
    many = [request("Ann has", options, document) for document in range(5)]
    texts = first.generate_until(many)
    assert len(set(texts)) > 1
    assert other.generate_until([request("Ann has", options, 3)]) == texts[3:4]
    repeated = request("Ann has", options, 1, repeats=3)
    again = first.generate_until([repeated] * 3)
    assert again[0] == texts[1] and len(set(again)) > 1
    assert len(repeated.args[1]["mdsample"]) == 3
    others = [request("Ann has", options, document) for document in range(5)]
    assert Mdsample(policy="entropy+top(2)", seed=1).generate_until(others) != texts


def test_no_more_tokens_than_the_task_allows() -> None:
    model = Mdsample(policy="entropy+top(4)")
    (text,) = model.generate_until([request("Ann has", {"max_gen_toks": 3})])
    assert len(model._model.tokenizer.encode(text)) <= 3
    # a context that is too long loses its beginning, not the answer
    (text,) = model.generate_until([request("Ann has 3 coins. " * 200, {"max_gen_toks": 3})])
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("arguments", "fault", "said"),
    [
        ({"likelihood": "exact"}, ModelError, "auto, chain, product, bound"),
        ({"policy": "medd"}, SpecError, "medd"),
        ({"pretrained": "no-such-model"}, MdsampleError, "no-such-model"),
        ({"template": "{a}{b}{answer:3}"}, TemplateError, "one field"),
        ({"batch_size": 4, "max_batch_size": 8}, ModelError, "max_batch_size"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], fault: type[Exception], said: str) -> None:
    with pytest.raises(fault, match=re.escape(said)):
        Mdsample(**arguments)


def test_what_a_task_asks_in_vain_is_refused() -> None:
    with pytest.raises(PolicyError, match=re.escape("top_p=0.5")):
        Mdsample().generate_until([request("a", {"top_p": 0.5})])
    assert Mdsample(policy="entropy+top(4)").generate_until([request("a", {"top_p": 1.0, "max_gen_toks": 4})])
    with pytest.raises(ModelError, match="chat template"):
        Mdsample().apply_chat_template([{"role": "user", "content": "hi"}])


def test_the_command_hands_a_policy_with_commas_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["mdsample"])
    line = ["lm-eval", "--model_args", f"pretrained=tiny-gsm,template=own,policy={POLICY}", "--tasks", "local_gsm"]
    line += ["--include_path", str(folder), "--limit", "2", "--log_samples", "--output_path", str(tmp_path)]
    assert main(line) == 0
    assert "local_gsm" in capsys.readouterr().out
    (written,) = tmp_path.rglob("samples*.jsonl")
    first = json.loads(written.read_text().splitlines()[0])
    assert first["arguments"]["gen_args_0"]["arg_1"]["mdsample"][0]["nfe"] > 0
    assert main(["lm-eval"]) == 2 and "name the tasks" in capsys.readouterr().err
