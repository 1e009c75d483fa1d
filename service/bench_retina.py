"""``rjepa bench retina``: the frozen network alone, as it ships, beside onnxruntime and openvino on the same patches.

Passes of each size, by turns; what is told are medians. Each runs a while uncounted before it is timed: the threads of
the one before it may still spin. The rivals compute in float32 like the retina, with as many threads, from one ONNX
export of the same folded network. A pass of one patch takes one thread of the packed retina's, as in a worker. Where
openvino is installed, the retina that it computes (``--engine openvino``: one network for passes of all sizes) has a
column of its own, and so has ``--precision bfloat16`` where the default engine has that.

A viewer alone sends a patch four times a second, and no thread and no cache is warm then: one patch after a rest is
measured too, by turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from model.backbone import (
    PATCH_PX,
    PRECISION,
    Backbone,
    Engine,
    PlainNetwork,
    Precision,
    images_of,
    same_bits,
    usable_engine,
)
from model.config import ModelConfig
from model.deadleaves import dead_leaves
from model.openvino_network import load_openvino, openvino_version
from model.weights import Weights, load_weights, parse_weights
from service.bench_clock import Timed, side_by_side
from service.bench_record import Found
from service.errors import BenchRefused
from service.experiment_rows import as_markdown, as_text
from service.learn_directory import retina_threads

SHAPES = (1, 2, 4, 8, 16, 32)
SECONDS = 4.0
TURN_S = 0.03
"""Of one turn: so long uncounted, and so long timed."""
MOST_ROUNDS = 500
RESTS = 40
REST_S = 0.25
RIVALS = ("onnxruntime", "openvino")
CHOSEN = "--engine openvino"
COARSE = "--precision bfloat16"
Pass = Callable[[], NDArray[np.float32]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which shapes, beside whom."""
    parser.add_argument(
        "--shapes", type=int, nargs="+", default=list(SHAPES), metavar="B", help=f"patches of one pass ({SHAPES})"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help=f"of measuring for each line ({SECONDS:g})"
    )
    parser.add_argument(
        "--rests", type=int, default=RESTS, metavar="N", help=f"how often each sees one patch after a rest ({RESTS})"
    )
    parser.add_argument(
        "--rivals", nargs="*", choices=RIVALS, default=list(RIVALS), help="beside whom (both; nothing: nobody)"
    )


def run(arguments: argparse.Namespace) -> Found:
    """One row for each size of a pass and number of threads, and what one patch after a rest takes with the most.

    Raises :class:`BenchRefused` where a rival is missing.
    """
    for name in arguments.rivals:
        if importlib.util.find_spec(name) is None or importlib.util.find_spec("onnxscript") is None:
            raise BenchRefused(f"{name} is not installed: pip install 'rjepa[bench]', or say --rivals with nothing")
    each = [arguments.threads] if arguments.threads is not None else sorted({1, retina_threads()})
    weights = load_weights(parse_weights("random"), seed=0)
    before = torch.get_num_threads()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), same_bits():
        exported = _export(weights, Path(folder) / "retina.onnx") if arguments.rivals else None
        total = len(each) * len(arguments.shapes) + 1
        found: Found = {"device": arguments.device, "rows": rows}
        with tqdm(total=total, desc="retina", unit="shape", disable=arguments.quiet) as bar:
            for threads in each:
                torch.set_num_threads(threads)
                for shape in arguments.shapes:
                    rows.append(_row(weights, exported, arguments, threads, shape))
                    bar.update()
            found["rested"] = _rested(weights, exported, arguments, each[-1])
            bar.update()
    torch.set_num_threads(before)
    return found


def told(found: Found, *, markdown: bool) -> str:
    """One line for each size of a pass and number of threads; and one patch after a rest."""
    table = as_markdown if markdown else as_text
    if "rested" not in found:
        return table(_lines(found))
    rested = found["rested"]
    names = list(rested["pass_ms"])
    line = [str(rested["threads"]), *(f"{rested['pass_ms'][name]:.1f}" for name in names)]
    after = table([["threads", *(_SPELLED.get(name, name) for name in names)], line])
    return f"{table(_lines(found))}\n\nOne patch after a rest of {1000 * rested['rest_s']:.0f} ms:\n\n{after}"


def _lines(found: Found) -> list[list[str]]:
    rivals = [name for name in RIVALS if name in found["rows"][0]["pass_ms"]]
    ours = [name for name in _SPELLED if name in found["rows"][0]["pass_ms"] and name != "packed"]
    heading = ["threads", "patches of a pass", "a pass, ms", "a patch, ms", *(_SPELLED[name] for name in ours), *rivals]
    lines = [[*heading, "to the best", "largest difference"] if rivals else heading]
    for row in found["rows"]:
        took = row["pass_ms"]
        line = [str(row["threads"]), str(row["shape"]), f"{took['packed']:.1f}"]
        line += [f"{took['packed'] / row['shape']:.2f}", *(f"{took[name]:.1f}" for name in (*ours, *rivals))]
        if rivals:
            line += [f"{row['ratio']:.2f}", f"{row['difference']:.0e}"]
        lines.append(line)
    return lines


_SPELLED = {"packed": "a pass, ms", "plain": "plain torch, ms", CHOSEN: f"{CHOSEN}, ms", COARSE: f"{COARSE}, ms"}


def _row(
    weights: Weights, exported: Path | None, arguments: argparse.Namespace, threads: int, shape: int
) -> dict[str, Any]:
    passes = _passes(weights, exported, arguments, threads, shape)
    mine = passes["packed"]()
    largest = max((float(np.abs(passes[name]() - mine).max()) for name in arguments.rivals), default=0.0)
    took = _medians_ms(passes, arguments.seconds, arguments.device)
    row: dict[str, Any] = {"threads": threads, "shape": shape, "pass_ms": took}
    if arguments.rivals:
        row["ratio"] = took["packed"] / min(took[name] for name in arguments.rivals)
        row["difference"] = largest / float(np.abs(mine).max())
    return row


def _rested(weights: Weights, exported: Path | None, arguments: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Of one patch, the median of each."""
    passes = _passes(weights, exported, arguments, threads, 1)
    del passes["plain"]  # a worker with that sees eight at once
    names = list(passes)
    took: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(arguments.rests):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(REST_S)
            begun = time.perf_counter()
            passes[name]()
            took[name].append(time.perf_counter() - begun)
    medians = {name: 1000.0 * statistics.median(seconds) for name, seconds in took.items()}
    return {"threads": threads, "rest_s": REST_S, "rests": arguments.rests, "pass_ms": medians}


def encoder_pass_ms(seconds: float = 2.0, patches: int | None = None) -> float:
    """One pass of the default retina, of ``patches`` or its batch shape; threads as in a new directory; the median."""
    before = torch.get_num_threads()
    torch.set_num_threads(retina_threads())
    shape = ModelConfig.preset("default").retina.batch_shape
    weights = load_weights(parse_weights("random"), seed=0)
    backbone = Backbone(weights, {}, stages="all", batch_shape=shape, device="cpu")
    seen = dead_leaves(shape if patches is None else patches, seed=4)
    took = _medians_ms({"pass": lambda: backbone.pooled(seen)}, seconds, "cpu")["pass"]
    torch.set_num_threads(before)
    return took


def _medians_ms(passes: dict[str, Pass], seconds: float, device: str) -> dict[str, float]:
    """Of each, by turns for about ``seconds``, after one that is not counted."""
    timed = [Timed(name, each, warm_s=TURN_S, least_s=TURN_S) for name, each in passes.items()]
    for each in timed:
        each.run()
    side_by_side(timed, repeats=MOST_ROUNDS, most_s=seconds / len(timed), device=device, told=lambda: None)
    return {each.name: 1000.0 * each.median_s for each in timed}


def _passes(
    weights: Weights, exported: Path | None, arguments: argparse.Namespace, threads: int, shape: int
) -> dict[str, Pass]:
    """Of our own engines those that are here, and the rivals asked for."""
    device = torch.device(arguments.device)
    images = images_of(dead_leaves(shape, seed=4), device)

    def ours(engine: Engine, precision: Precision = PRECISION) -> Pass:
        return _ours(weights, images, str(device), engine, precision)

    passes = {"packed": ours("packed"), "plain": ours("plain")}
    if device.type == "cpu" and openvino_version() is not None:
        passes[CHOSEN] = ours("openvino")
    if device.type != "cpu" or usable_engine("packed", device, "bfloat16") == "packed":
        passes[COARSE] = ours("packed", "bfloat16")
    if exported is not None:
        on_cpu = np.ascontiguousarray(images.cpu().numpy())
        makers = {"onnxruntime": _onnxruntime, "openvino": _openvino}
        passes |= {name: makers[name](exported, on_cpu, threads) for name in arguments.rivals}
    return passes


def _ours(weights: Weights, images: Tensor, device: str, engine: Engine, precision: Precision) -> Pass:
    shape = max(len(images), ModelConfig.preset("default").retina.batch_shape)
    backbone = Backbone(weights, {}, stages="all", batch_shape=shape, device=device, engine=engine, precision=precision)

    def run_it() -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = torch.cat(backbone.run(images), dim=1).cpu().numpy()
        return pooled

    return run_it


class _Exported(nn.Module):
    """What is exported: images in, pooled activities out."""

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__()
        self.net = network.net
        self._network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self._network(images), dim=1)


def _export(weights: Weights, path: Path) -> Path:
    """The folded network as ONNX, for any number of patches."""
    network = Backbone(weights, {}, stages="all", batch_shape=2, device="cpu", engine="plain").network
    assert isinstance(network, PlainNetwork)
    example = torch.zeros(2, 3, PATCH_PX, PATCH_PX)
    any_number = {"images": {0: torch.export.Dim("patches", min=1, max=256)}}
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # the exporter's own, about its future
        torch.onnx.export(
            _Exported(network).eval(), (example,), path,
            dynamo=True, verbose=False, input_names=["images"], dynamic_shapes=any_number,
        )  # fmt: skip
    return path


def _onnxruntime(path: Path, images: NDArray[np.float32], threads: int) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images}

    def run_it() -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = session.run(None, given)[0]
        return pooled

    return run_it


def _openvino(path: Path, images: NDArray[np.float32], threads: int) -> Pass:
    openvino = load_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", how | {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def run_it() -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = request.infer([images])[0]
        return pooled

    return run_it
