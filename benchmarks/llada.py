"""What the runs of docs/llada.md take on an H100: arithmetic on LLaDA-8B's published sizes, nothing is run or measured.

    python benchmarks/llada.py [--tflops 989] [--prompt 120]

Hours are the operations of all forward passes (`least`: what must be computed, no cache) over the card's
published peak, bfloat16 without sparsity, and over 40 % of it. A prompt is taken to have 120 tokens, chat included.
Passes are the paper's where it tells them, else the number of blanks. Training counts four forward passes a position:
one forward, one more since activations are computed twice, two backward.
"""

from __future__ import annotations

from common import command_line, print_head, print_row

from mdsample.models.families.trunk import Trunk

#: reasoning, delimiter and answer
LENGTH = 256
TEST, TRAIN, WRONG, MATH = 1319, 7473, 1419, 500
EPOCHS = 3
#: share of the peak that large matrix products reach in practice; a guess
REACHED = 0.4

#: table, policy or model, problems, forward passes of each, places looked at in a pass
RUNS = (
    ("T1", "`blocks(1)`", TEST, 256, 1),
    ("T1, T2", "`blocks(32)`, one at a time", TEST, 256, 32),
    ("T1", "`blocks(128)`", TEST, 256, 128),
    ("T1", "`whole`", TEST, 256, 256),
    ("T2", "two at a time", TEST, 128, 32),
    ("T2", "four at a time", TEST, 64, 32),
    ("T2", "MATH-500, all three", MATH, 256 + 128 + 64, 32),
    ("T3", "the training problems, `med`", TRAIN, 94, 32),
    ("T3", "a trace of each wrong one, one model", WRONG, 94 + 5, 32),
    ("T4", "a trace of each training problem", TRAIN, 94 + 5, 32),
    ("T4", "one model on the test problems", TEST, 250, 32),
    ("T5", "one at a time", TEST, 256, 32),
    ("T5", "early exit", TEST, 193, 42),
    ("T5", "`med`", TEST, 94, 32),
    ("T5", "`med+early-exit`", TEST, 77, 42),
)


def published(tiny: bool) -> Trunk:
    """The sizes of LLaDA-8B's config.json; `tiny`: a trunk of the same kind that any machine can run."""
    sizes = {"vocab_size": 126_464, "d_model": 4096, "layers": 32, "heads": 32, "kv_heads": 32, "mlp_size": 12_288}
    small = {"vocab_size": 2000, "d_model": 64, "layers": 2, "heads": 4, "kv_heads": 4, "mlp_size": 128}
    chosen = small if tiny else sizes
    width = chosen["d_model"] // chosen["heads"]
    rest = {"rope_theta": 500_000.0, "norm_eps": 1e-5, "tied": False, "max_length": 4096, "layouts": ()}
    tokens = {"mask_id": chosen["vocab_size"] - 1, "end_id": chosen["vocab_size"] - 2, "start_id": None}
    return Trunk(**{"family": "llada", **chosen, "head_dim": width, "rotary_dim": width, **rest, **tokens})


def least(spec: Trunk, rows: int, length: int, computed: int, wanted: int, item: int) -> tuple[float, float]:
    """Operations and bytes that a step must cost; `computed` tokens a row in the trunk, `wanted` in the head."""
    inner, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    layer = spec.d_model * (2 * inner + 2 * kv) + 3 * spec.d_model * spec.mlp_size
    attention = 4 * inner * length
    # the last layer: keys and values of all, everything else of what is looked at
    last_all, last_looked = 2 * spec.d_model * kv, layer - 2 * spec.d_model * kv
    operations = rows * (
        (spec.layers - 1) * computed * (2 * layer + attention)
        + 2 * computed * last_all
        + wanted * (2 * last_looked + attention)
        + 2 * wanted * spec.d_model * spec.vocab_size
    )
    weights = spec.layers * layer + spec.d_model * spec.vocab_size
    kept = rows * length * 2 * kv * spec.layers if computed < length else 0
    return operations, item * (weights + kept)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--tflops", type=float, default=989.0, help="peak of the card, 10^12 operations a second")
    parser.add_argument("--prompt", type=int, default=120, help="tokens before the first slot")
    options = parser.parse_args()
    spec, length, peak = published(False), options.prompt + LENGTH, options.tflops * 1e12
    print_head(("table", "run", "problems", "passes", "hours at the peak", "at 40 % of it"), text=2)
    for table, what, problems, passes, wanted in RUNS:
        operations, _ = least(spec, problems, length, length, wanted, 2)
        hours = operations * passes / peak / 3600
        print_row((table, what, f"{problems:,}", passes, f"{hours:.2f}", f"{hours / REACHED:.1f}"))
    operations, _ = least(spec, TRAIN * EPOCHS, length, length, LENGTH // 2, 2)
    hours = 4 * operations / peak / 3600
    print_row(("T4", f"one training, {EPOCHS} epochs", f"{TRAIN:,}", "", f"{hours:.2f}", f"{hours / REACHED:.1f}"))

    gib, rows, trained = 2**30, 16, 8
    weights = spec.parameters
    wide = 2 * spec.mlp_size + spec.d_model
    per_layer = 4 * 2 * spec.d_model + 3 * (spec.d_model + spec.mlp_size)
    adapters = 16 * spec.layers * per_layer
    kept = trained * length * spec.d_model * spec.layers * 2
    logits = 3 * trained * LENGTH * spec.vocab_size * 4
    print(f"\nweights in bfloat16: {2 * weights / gib:.1f} GiB")
    print(f"widest activations of {rows} rows: {2 * rows * length * wide / gib:.2f} GiB")
    print(f"all weights trained, 16 bytes each: {16 * weights / gib:.1f} GiB")
    print(f"adapters of rank 16: {adapters / 1e6:.1f} million weights, {16 * adapters / gib:.2f} GiB in training")
    print(f"layers' inputs of {trained} rows with --save-memory: {kept / gib:.2f} GiB")
    print(f"logits of {trained} rows, all of 256 masked, and two copies, float32: {logits / gib:.1f} GiB")


if __name__ == "__main__":
    main()
