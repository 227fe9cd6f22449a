"""Af-DCD's contrast (L1, forward and backward): time and peak memory of three exact forms, side by side in one run.

    python -m benchmarks.l1_contrast [--batch 2 8] [--channels 2048] [--size 16 32] [--repeats 5] [--device cuda]

`masks` keeps the matrix of all pairs, picks positives and negatives from it by boolean masks, and lets autograd do the
rest; `cdist` masks the matrix in place of picking; `ours` is `patch_contrast`. The maps are what comes after pooling:
post-ReLU like for the teacher, and for the student either independent of it (`far`) or the same with noise (`near`).
Forms take turns, medians are printed, and values and gradients are compared with those of `cdist` in fp64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.afdcd import Layout
from kdsearch.distill.ops.patch_contrast import dropped, partition, patch_contrast
from kdsearch.testing.memory import peak_extra_bytes

LAYOUT, TAU = Layout(groups=16, patch=4, exclude_same_group=True), 0.07


def masks(guess_bchw: Tensor, teacher_bchw: Tensor) -> Tensor:
    left, right = partition(guess_bchw, LAYOUT), partition(teacher_bchw, LAYOUT)
    logits = -torch.cdist(left, right, p=1) / TAU
    problems, vectors, _ = logits.shape
    rows = torch.arange(vectors, device=logits.device)
    twin = torch.eye(vectors, dtype=torch.bool, device=logits.device).expand_as(logits)
    negative = ~(dropped(LAYOUT, rows) | twin)
    positives = logits[twin].view(problems, vectors, 1)
    negatives = logits[negative].view(problems, vectors, -1)
    picked = torch.cat([positives, negatives], 2).flatten(0, 1)
    return F.cross_entropy(picked, torch.zeros(len(picked), dtype=torch.long, device=logits.device))


def cdist(guess_bchw: Tensor, teacher_bchw: Tensor) -> Tensor:
    left, right = partition(guess_bchw, LAYOUT), partition(teacher_bchw, LAYOUT)
    logits = -torch.cdist(left, right, p=1) / TAU
    left_out = dropped(LAYOUT, torch.arange(LAYOUT.vectors, device=logits.device))
    return (logits.masked_fill(left_out, -torch.inf).logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).mean()


def ours(guess_bchw: Tensor, teacher_bchw: Tensor) -> Tensor:
    return patch_contrast(guess_bchw, teacher_bchw, LAYOUT, "l1", TAU)


FORMS = (masks, cdist, ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--size", type=int, nargs=2, default=[16, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    threads = "" if args.device != "cpu" else f", {torch.get_num_threads()} thread(s)"
    print(f"torch {torch.__version__}, {args.device}{threads}; {args.channels} channels of {args.size} pixels\n")
    print("batch  student  form    fwd ms  fwd+bwd ms   peak MB  value      relative error of value, gradient")
    for batch in args.batch:
        for kind in ("far", "near"):
            compare(batch, kind, args)


def compare(batch: int, kind: str, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    shape = (batch, args.channels, *args.size)
    teacher = torch.randn(shape, device=args.device).relu()
    student = torch.randn(shape, device=args.device)
    student = (student if kind == "far" else teacher + 2 * student).requires_grad_()
    exact_student = student.detach().double().requires_grad_()
    exact = cdist(exact_student, teacher.double())
    exact.backward()
    assert exact_student.grad is not None

    def step(form: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float, Tensor]:
        student.grad = None
        start = now(args.device)
        value = form(student, teacher)
        middle = now(args.device)
        value.backward()
        return middle - start, now(args.device) - start, value

    for form in FORMS:
        step(form)  # compiles, allocates
    times: dict[str, list[tuple[float, float]]] = {form.__name__: [] for form in FORMS}
    for _ in range(args.repeats):
        for form in FORMS:
            times[form.__name__].append(step(form)[:2])
    for form in FORMS:
        value = step(form)[2]
        assert student.grad is not None
        scale = exact_student.grad.abs().max()
        error = (student.grad - exact_student.grad).abs().max() / scale
        forward, both = (statistics.median(column) * 1e3 for column in zip(*times[form.__name__], strict=True))
        peak = peak_extra_bytes(lambda form=form: step(form), args.device) / 1e6
        print(
            f"{batch:5d}  {kind:7s}  {form.__name__:5s}  {forward:7.1f}  {both:10.1f}  {peak:8.1f}  {value.item():9.4f}"
            f"  {abs(value.item() - exact.item()) / max(exact.item(), 1e-3):.1e}, {error.item():.1e}"
        )


def now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
