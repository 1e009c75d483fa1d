"""``rjepa bench step``: one learning step beside a copy of the bytes it touches, and beside its rivals.

The same learner each time (the bounded circuit, a linear predictor by Adam, no gaze; features and embedding as the
options say), with gates that are not zero. What is timed is ``Learner.observe`` without the trivial predictors and the
rank; the default learner has them. A circuit's contenders take turns, the step with one thread of torch, as in a
worker, the others with one or with all, whichever they are faster with:

    copy        a plain copy of half as many bytes as a step reads and writes (a copy does both)
    step        recurrent forward propagation
    stored      truncated back-propagation, 100 steps back at every fixation, through the states and derivatives kept
                when the steps were made (dense gates: with today's W)
    anew        the same through the steps made again with today's weights, which is what the words mean
    every       one back-propagation every 100 fixations, a hundredth of all hundred
    rtrl        full real-time recurrent learning, where its matrix fits

Copy and step run in the mode the product does. The rivals alone take subnormal numbers for zero: an error that fades
away through 100 steps becomes such a number, with which processors are many times slower. torch sets that mode for the
thread that asks, and not for its others: a rival has it whole with one thread.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import torch
from tqdm import tqdm

from model.config import ModelConfig
from model.learner import Learner, Look
from model.rivals import FullRtrl, Rival
from model.step_cost import floor_bytes, state_bytes, touched, touched_back
from model.truncated import Truncated
from service.bench_clock import Timed, choose_threads, side_by_side
from service.bench_record import Found
from service.errors import BenchRefused
from service.experiment_rows import Column, as_markdown, as_text, table

GATES: dict[str, dict[str, Any]] = {
    "two-point": {"gates": "two-point"},
    "modular-2": {"gates": "modular", "block": 2},
    "modular-4": {"gates": "modular", "block": 4},
    "modular-8": {"gates": "modular", "block": 8},
    "dense": {"gates": "dense"},
    "dense-compiled": {"gates": "dense", "dense_step": "compiled"},
}
DEFAULT = "default learner"
UNITS = (128, 256, 512, 1024, 2048)
REACH = 100
_RTRL_BYTES = 100_000_000
_TRIED_S = 0.1
_WARM_S, _LEAST_S = 0.01, 0.02
"""Of a sample: many steps in a row, the first of them not counted, so that they find in the caches what steps leave."""
_ONE_S = 1e-9
"""The same for what takes long: one run that is not counted."""
_WARM = 3
_DRAWN = 256
_RIVALS = ("stored", "anew", "every", "rtrl")

BY = (Column("gates", "gates"), Column("n", "n"))
TIMES = (
    Column("step, ms", "step_ms", 2),
    Column("copy, ms", "copy_ms", 2),
    Column("step / copy", "to_copy", 2),
    Column("MB touched", "floor_mb", 1),
    Column("the first, ms", "first_ms", 2),
)
RIVALS = (
    Column("step, ms", "step_ms", 2),
    Column("100 back, as stored", "to_stored", 1),
    Column("100 back, anew", "to_anew", 1),
    Column("bytes, as stored", "bytes_stored", 1),
    Column("bytes, anew", "bytes_anew", 1),
    Column("one back-propagation every 100", "to_every", 2),
    Column("full RTRL", "to_rtrl", 0),
)
BYTES = (
    Column("RFP, MB", "state_mb", 2),
    Column("BPTT over 100, MB", "bptt_mb", 2),
    Column("the same anew, MB", "bptt_anew_mb", 2),
    Column("BPTT over 1,000, MB", "bptt_1000_mb", 2),
    Column("full RTRL, MB", "rtrl_mb", 0),
)
EXPONENTS = (
    Column("step", "step", 2),
    Column("step, last doubling", "step_last", 2),
    Column("copy, last doubling", "copy_last", 2),
    Column("100 back, as stored, last doubling", "stored_last", 2),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which circuits, how often."""

    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--n", type=int, nargs="+", default=list(UNITS), metavar="N", help=f"units ({' '.join(map(str, UNITS))})")
    option("--gates", nargs="+", choices=list(GATES), metavar="GATES", help=f"some of {', '.join(GATES)} (all)")
    option("--features", type=int, default=128, metavar="M", help="numbers a fixation has (128)")
    option("--embedding", type=int, default=120, metavar="Q", help="numbers of the embedding (120)")
    option("--repeats", type=int, default=30, metavar="N", help="rounds; medians over them are told (30)")
    option("--seconds", type=float, default=1.0, metavar="S", help="after which one sits out the other rounds (1)")
    option("--without-rivals", action="store_true", help="the step and the copy alone")


def run(arguments: argparse.Namespace) -> Found:
    """One row for each circuit, and one for the default learner with all it has."""
    chosen = arguments.gates or _all_gates(arguments.device)
    todo = [(gates, n) for gates in chosen for n in arguments.n]
    _check(todo, arguments)
    rows, total = [], (len(todo) + 1) * arguments.repeats
    with tqdm(total=total, desc="step", unit="round", disable=arguments.quiet, leave=False) as bar:
        for gates, n in todo:
            bar.set_postfix_str(f"{gates}, n = {n}")
            rows.append(_measure(gates, n, arguments, bar.update))
            gc.collect()
        bar.set_postfix_str(DEFAULT)
        learner = _default(arguments, bar.update)
    return {"rows": rows, "exponents": exponents(rows), "default": learner, "settings": _settings(arguments)}


def told(found: Found, *, markdown: bool) -> str:
    """The tables, each under a line that says what it is of."""
    return "\n\n".join(_table_told(*each, markdown=markdown) for each in _tables(found))


_Table = tuple[str, list[dict[str, Any]], tuple[Column, ...], tuple[Column, ...]]


def _tables(found: Found) -> list[_Table]:
    """Title, rows, what a line is of, columns."""
    rows = found["rows"]
    beside = [row for row in rows if "to_stored" in row]
    return [
        ("One step beside a copy of the bytes it touches", [*rows, found["default"]], BY, TIMES),
        ("Times a rival takes longer than the step", beside, BY, RIVALS),
        ("Kept of the past for the credit", beside, BY, BYTES),
        ("Exponents of time over n", found["exponents"], BY[:1], EXPONENTS),
    ]


def _table_told(
    title: str, rows: list[dict[str, Any]], by: tuple[Column, ...], columns: tuple[Column, ...], *, markdown: bool
) -> str:
    if not rows:
        return f"{title}: not measured"
    lines = table(rows, by, columns)
    return f"{title}:\n\n{as_markdown(lines)}" if markdown else f"{title}\n{as_text(lines)}"


def config_of(gates: str, n: int, *, features: int, embedding: int) -> ModelConfig:
    """The learner that is timed."""
    return ModelConfig.preset(
        "default",
        **GATES[gates],
        units=n,
        embedding_size=embedding,
        retina={"features": features},
        predictor={"kind": "linear", "action": "none", "near": False, "place_memory": "off"},
        learning={"warmup": 0},
    )


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each gates' times over n: the slope of the logarithms, over all n and from the last n but one to the last."""
    found = []
    for gates in dict.fromkeys(row["gates"] for row in rows):
        of = sorted((row for row in rows if row["gates"] == gates), key=lambda row: int(row["n"]))
        if len(of) < 2:
            continue
        told = {"gates": gates, "step": _slope(of, "step_ms"), "step_last": _slope(of[-2:], "step_ms")}
        told |= {"copy_last": _slope(of[-2:], "copy_ms")}
        if all("stored_ms" in row for row in of[-2:]):
            told["stored_last"] = _slope(of[-2:], "stored_ms")
        found.append(told)
    return found


def _slope(rows: list[dict[str, Any]], name: str) -> float:
    """Least squares of log time over log n."""
    x, y = [math.log(row["n"]) for row in rows], [math.log(row[name]) for row in rows]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def _all_gates(device: str) -> list[str]:
    """Those that can be measured on ``device``; what is left out is told."""
    missing = _not_compiled(device)
    if missing is None:
        return list(GATES)
    print(f"dense-compiled is left out: {missing}", file=sys.stderr)
    return [gates for gates in GATES if gates != "dense-compiled"]


def _not_compiled(device: str) -> str | None:
    """Why the compiled step can't be had, or None."""
    if device != "cpu":
        return f"it is for the CPU, not for {device}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'rjepa[fast]')"
    return None


def _check(todo: list[tuple[str, int]], arguments: argparse.Namespace) -> None:
    """Find out what can't be measured before anything is. Raises :class:`BenchRefused`, or ModelError."""
    for gates, n in todo:
        if arguments.embedding > 2 * n or n % GATES[gates].get("block", 1):
            raise BenchRefused(f"n = {n} does not go with gates {gates} and an embedding of {arguments.embedding}")
        missing = _not_compiled(arguments.device) if gates == "dense-compiled" else None
        if missing is not None:
            raise BenchRefused(f"dense-compiled can't be measured: {missing}; name other --gates")
        config_of(gates, n, features=arguments.features, embedding=arguments.embedding)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("features", "embedding", "repeats", "seconds", "device")
    return {name: getattr(arguments, name) for name in names}


def _measure(gates: str, n: int, arguments: argparse.Namespace, told: Callable[[], object]) -> dict[str, Any]:
    """One circuit: every contender, side by side."""
    device, features = arguments.device, arguments.features
    config = config_of(gates, n, features=features, embedding=arguments.embedding)
    learner = Learner(config, seed=0, device=device, measured=False)
    timed = [
        _copy(learner, device),
        Timed("step", _observing(learner, features), warm_s=_WARM_S, least_s=_LEAST_S, threads=1),
    ]
    rivals: dict[str, Rival] = {}
    if not arguments.without_rivals:
        rivals = _rivals(config.model_copy(update={"dense_step": "torch"}), device)
        for name, rival in rivals.items():
            going = _without_subnormals(_observing(rival, features, each=_per_run(name)))
            warm_s = _ONE_S if _per_run(name) == 1 else 0.0  # of a hundred in a row the first is no matter
            timed.append(Timed(name, going, _per_run(name), warm_s=warm_s, least_s=_LEAST_S))
    choose_threads([each for each in timed if each.name != "step"], most_s=_TRIED_S, device=device)
    side_by_side(timed, repeats=arguments.repeats, most_s=arguments.seconds, device=device, told=told)
    by_name = {each.name: each for each in timed}
    row = _row(gates, n, learner, by_name)
    if rivals:
        row |= _row_of_rivals(by_name, rivals, learner)
    return row


def _without_subnormals(run: Callable[[], None]) -> Callable[[], None]:
    """``run`` with subnormal numbers taken for zero in this thread, and in no run after it."""

    def go() -> None:
        torch.set_flush_denormal(True)
        try:
            run()
        finally:
            torch.set_flush_denormal(False)

    return go


def _per_run(name: str) -> int:
    return REACH if name == "every" else 1


def _rivals(config: ModelConfig, device: str) -> dict[str, Rival]:
    """Those that fit, with all of their past behind them."""
    makers: dict[str, Callable[[Learner], Any]] = {
        "stored": partial(Truncated, reach=REACH),
        "anew": partial(Truncated, reach=REACH, anew=True),
        "every": partial(Truncated, reach=REACH, every=REACH),
    }
    weights = Learner(config, seed=0, measured=False).parameters.flat.numel() if config.units <= 512 else 0
    if 0 < weights * config.units * config.components * 4 <= _RTRL_BYTES:
        makers["rtrl"] = FullRtrl
    return {name: Rival(config, make, seed=0, device=device, measured=False) for name, make in makers.items()}


def _observing(learner: Learner, features: int, each: int = 1) -> Callable[[], None]:
    """``each`` fixations of one stream, with gates that are not zero and so many steps behind it as BPTT goes back."""
    random = torch.Generator().manual_seed(0)
    for name, weight in learner.network.weights.items():
        if name.startswith("W_"):
            spread = 0.1 / math.sqrt(weight.shape[-1] if weight.dim() > 1 else 1)
            weight.copy_(torch.randn(weight.shape, generator=random) * spread)
    drawn = cycle(torch.randn(_DRAWN, features, generator=random))
    if isinstance(learner, Rival):
        learner.set_learning(False)
        for _ in range(learner.credit.reach):
            learner.observe("bench", next(drawn))
        learner.set_learning(True)
    for _ in range(_WARM):
        learner.observe("bench", next(drawn))

    def go() -> None:
        for _ in range(each):
            learner.observe("bench", next(drawn))

    return go


def _copy(learner: Learner, device: str) -> Timed:
    source = torch.rand(floor_bytes(learner) // 8, device=device)  # float32, and half of the bytes are written
    target = torch.empty_like(source)
    return Timed("copy", partial(target.copy_, source), warm_s=_WARM_S, least_s=_LEAST_S)


def _row(gates: str, n: int, learner: Learner, timed: dict[str, Timed]) -> dict[str, Any]:
    step, copy = timed["step"], timed["copy"]
    return {
        "gates": gates,
        "n": n,
        "step_ms": step.median_s * 1e3,
        "copy_ms": copy.median_s * 1e3,
        "to_copy": step.median_s / copy.median_s,
        "first_ms": step.first_s * 1e3,
        "floor_mb": floor_bytes(learner) / 1e6,
        "touched": [part._asdict() for part in touched(learner)],
        "state_mb": state_bytes(learner) / 1e6,
        "samples": {name: len(each.samples) for name, each in timed.items()},
    }


def _row_of_rivals(timed: dict[str, Timed], rivals: dict[str, Rival], learner: Learner) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _RIVALS:
        if name in timed:
            found[f"{name}_ms"] = timed[name].median_s * 1e3
            found[f"to_{name}"] = timed[name].median_s / timed["step"].median_s
            found[f"threads_{name}"] = timed[name].threads or torch.get_num_threads()
    kept = rivals["stored"].credit.state_bytes()
    found |= {"bptt_mb": kept / 1e6, "bptt_1000_mb": kept * 1000 / REACH / 1e6}
    found["bptt_anew_mb"] = rivals["anew"].credit.state_bytes() / 1e6
    for name in ("stored", "anew"):
        back = touched_back(learner, reach=REACH, past=kept, anew=name == "anew")
        found[f"bytes_{name}"] = sum(part.moved for part in back) / floor_bytes(learner)
    if "rtrl" in rivals:
        found["rtrl_mb"] = rivals["rtrl"].credit.state_bytes() / 1e6
    return found


def _default(arguments: argparse.Namespace, told: Callable[[], object]) -> dict[str, Any]:
    """The default learner with everything: gaze, place memory, least squares, every trivial predictor and the rank."""
    learner = Learner(ModelConfig.preset(), seed=0, device=arguments.device)
    random = torch.Generator().manual_seed(0)
    drawn = cycle(torch.randn(_DRAWN, learner.config.features, generator=random))
    places = torch.rand(_DRAWN - 1, 2, generator=random).tolist()
    looks = cycle([Look((x, y)) for x, y in places])

    def go() -> None:
        learner.observe("bench", next(drawn), next(looks), marked=True)

    for _ in range(2 * REACH):
        go()
    copy = _copy(learner, arguments.device)
    timed = {"copy": copy, "step": Timed("step", go, warm_s=_WARM_S, least_s=_LEAST_S, threads=1)}
    choose_threads([copy], most_s=_TRIED_S, device=arguments.device)
    side_by_side(
        [*timed.values()], repeats=arguments.repeats, most_s=arguments.seconds, device=arguments.device, told=told
    )
    return _row(DEFAULT, learner.config.units, learner, timed)
