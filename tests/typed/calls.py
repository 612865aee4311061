"""Calls as users write them, for type checkers to read: those marked `# wrong` are errors, and all others are not."""

import mdsample
from mdsample import (
    AboveConfidence,
    Ban,
    BelowEntropy,
    Budget,
    Canvas,
    Cfg,
    Choices,
    Confidence,
    EarlyExit,
    ErrorBudget,
    Policy,
    RemdmRemask,
    Result,
    Row,
    Sampler,
    Samples,
    Temperature,
    Template,
    Top,
)
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.prompts import Message

# settings: the first by place, the others by name; some are required
EarlyExit()
EarlyExit(0.1)
EarlyExit(0.1, slot="answer")
EarlyExit(entropy=0.1)
EarlyExit(0.1, "answer")  # wrong
EarlyExit(0.1, slots="answer")  # wrong
Budget(30)
Budget()  # wrong
Budget(nfe="30")  # wrong
ErrorBudget(1.0)
ErrorBudget(1)
ErrorBudget()  # wrong
Choices(("yes", "no"))
Choices(("yes", "no"), slot="answer")
Choices()  # wrong
Choices(("yes", "no"), "answer")  # wrong
Ban(("the", 7))
Ban(1.5)  # wrong
Top()
Top(3)
Top(k=3)
Top("3")  # wrong
BelowEntropy(0.2, k=3)
BelowEntropy(0.2, 3)  # wrong
AboveConfidence(probability=0.9)
Confidence(noise=0.1)
Confidence(0.1)  # wrong
Temperature(0.7, top_p=0.9)
Temperature(0.7, 0.9)  # wrong
RemdmRemask("loop", eta=0.02, steps=64, limit=100)
RemdmRemask("loop", 0.02)  # wrong
Cfg(1.5)

# policies
policy: Policy = Confidence() + Top(2) + Temperature()
policy = mdsample.parse("med") + EarlyExit(0.2)
policy = mdsample.med(0.2) + Temperature()
policy = mdsample.parse(3)  # wrong
Sampler(policy)
Sampler("med", seed=3)
Sampler(Top(2))
Sampler(policy, 3)  # wrong
Sampler(seed=3)  # wrong

# one prompt gives a row, several give samples
model: Denoiser = mdsample.load("tiny-gsm", device="cpu")
mdsample.load("tiny-gsm", "torch", "cpu")  # wrong
row: Row = mdsample.sample(model, "a text")
row = mdsample.sample(model, {"prompt": "a text"}, policy="med", seed=1)
turns: list[Message] = [{"role": "user", "content": "a text"}]
row = mdsample.sample(model, turns)
rows: Samples = mdsample.sample(model, ["a text", "another"])
mdsample.sample("tiny-gsm", "a text")  # wrong
mdsample.sample(model, "a text", "med")  # wrong
mdsample.sample(model, 3)  # wrong
for step in mdsample.watch(model, "a text"):
    text: str = step.text
for one in mdsample.stream(model, ["a text"], batch_size=4):
    nfe: int = one.nfe

# the long way
template = Template.parse("{prompt}{answer:4}")
canvas: Canvas = template.canvas(model.tokenizer, [{"prompt": "a text"}], ids=["a"])
template.canvas(model.tokenizer, "a text")  # wrong
template.canvas(model, [{"prompt": "a text"}])  # wrong
result: Result = Sampler("med").run(model, canvas, batch_size=4)
Sampler("med").run(canvas, model)  # wrong
first: Row = result.rows[0]
bound: float = first.error_bound
