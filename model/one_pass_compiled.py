"""The dense step's one pass, compiled by numba when the learner is made: no compiler is needed on the machine.

The formulas are those of model/one_pass.py, a row at a time, so that memory is read and written once. Rows don't depend
on each other, and every core takes some of those that are left until none is: the same bits for any number of cores.

The next step of the stream begins with W s of each gate. The state is known by now, and each row of W has just been
changed and is still at hand, so the pass makes that product too; where the next step is another stream's, or the
weights were loaded in between, it is made anew by the same sum, with the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.errors import ModelError
from model.one_pass import Known, Segment, Step
from model.optimiser import Rule
from model.rfp import Sensitivities

Row = Any
"""Of one weight, of one unit: a vector."""
One = Any
"""A number, of the vectors' type."""

_NOTHING, _SGD, _ADAM = range(3)
_TOGETHER = 64
"""Rows that take turns at a weight, so that what is read lies in fewer and longer stretches."""
_TURNS = 2
"""Of each core at a step, so that one that is held up elsewhere leaves more to the others."""
_FREE = {"contract", "reassoc", "nsz"}
"""Rounding may differ; what is not a number must stay so, for it is looked for."""
_FLAT: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def _learn(h: Row, c: Row, w: Row, dh: One, dc: One, rate: One) -> One:
    """Plain gradient descent of one weight's row: sum dw^2."""
    squares = rate - rate  # zero, of their type
    for j in range(h.shape[0]):
        d = rate * (dh * h[j] + dc * c[j])
        w[j] -= d
        squares += d * d
    return squares


def _learn_adam(h: Row, c: Row, w: Row, m: Row, v: Row, dh: One, dc: One, rate: One, numbers: Row) -> One:
    """Adam of one weight's row: sum dw^2. ``numbers``: as :class:`Compiled` lays them out, 0 the last."""
    keep_m, new_m, keep_v, new_v, root, epsilon = numbers[:6]
    squares = numbers[8]
    for j in range(h.shape[0]):
        g = dh * h[j] + dc * c[j]
        mj = keep_m * m[j] + new_m * g
        vj = keep_v * v[j] + new_v * (g * g)
        m[j] = mj
        v[j] = vj
        d = rate * mj / (np.sqrt(vj) * root + epsilon)
        w[j] -= d
        squares += d * d
    return squares


def _change(w: Row, g: Row, rates: Row, numbers: Row) -> One:
    """Plain gradient descent of weights whose gradient is ``g``, each at its rate: sum dw^2."""
    squares = numbers[8]
    for j in range(g.shape[0]):
        d = numbers[7] * rates[j] * g[j]
        w[j] -= d
        squares += d * d
    return squares


def _change_adam(w: Row, m: Row, v: Row, g: Row, rates: Row, numbers: Row) -> One:
    """Adam of the same."""
    keep_m, new_m, keep_v, new_v, root, epsilon, _, scale, squares = numbers
    for j in range(g.shape[0]):
        mj = keep_m * m[j] + new_m * g[j]
        vj = keep_v * v[j] + new_v * (g[j] * g[j])
        m[j] = mj
        v[j] = vj
        d = scale * rates[j] * mj / (np.sqrt(vj) * root + epsilon)
        w[j] -= d
        squares += d * d
    return squares


def _advance(h: Row, c: Row, a: Any, fh: One, fc: One, source: Row, limit: One) -> int:
    """S <- A S + factors source of one weight's row; how many numbers pass the limit or are none."""
    hh, hc, ch, cc = a[0, 0], a[0, 1], a[1, 0], a[1, 1]
    over = 0
    for j in range(h.shape[0]):
        x = source[j]
        nh = hh * h[j] + hc * c[j] + fh * x
        nc = ch * h[j] + cc * c[j] + fc * x
        h[j] = nh
        c[j] = nc
        over += (not abs(nh) <= limit) | (not abs(nc) <= limit)
    return over


def _dot(w: Row, s: Row, zero: One) -> One:
    """w s of one row."""
    found = zero
    for j in range(s.shape[0]):
        found += w[j] * s[j]
    return found


class _Made(NamedTuple):
    """For float32 or float64."""

    rows: Callable[..., None]
    """The pass over some rows."""
    rest: Callable[..., float]
    """The optimiser's step of weights whose gradient is known; sum dw^2."""
    products: Callable[..., None]
    """W s of each gate."""


def _make(dtype: Any) -> _Made:
    try:
        import numba
    except ModuleNotFoundError:
        raise ModelError(
            "dense_step 'compiled' needs numba: pip install 'rjepa[fast]', or say dense_step torch"
        ) from None
    made = numba.njit(fastmath=_FREE, error_model="numpy")
    learn, learn_adam, advance = made(_learn), made(_learn_adam), made(_advance)
    dot = numba.njit(fastmath=_FREE, error_model="numpy", inline="never")(_dot)

    def rows(
        first: int, last: int, values: Any, w: Row, m: Row, v: Row, table: Any, rates: Row, factors: Any, sources: Any,
        jacobian: Any, back: Any, numbers: Row, how: int, squares: Row, past: Any, read: Any, arguments: Any,
    ) -> None:  # fmt: skip
        for begin in range(first, last, _TOGETHER):
            end = min(begin + _TOGETHER, last)
            squares[begin:end] = 0
            past[begin:end] = 0
            for s in range(table.shape[0]):
                column, width, place = table[s]
                x, rate, limit = sources[s, :width], rates[s], numbers[6]
                for i in range(begin, end):
                    h, c = values[i, 0, column : column + width], values[i, 1, column : column + width]
                    a, b = place + i * width, place + (i + 1) * width
                    dh, dc = back[0, i], back[1, i]
                    if place >= 0 and how == 2:
                        squares[i] += learn_adam(
                            h, c, w[a:b], m[a:b], v[a:b], back[0, i], back[1, i], rates[s], numbers
                        )
                    elif place >= 0 and how == 1:
                        squares[i] += learn(h, c, w[a:b], dh, dc, rate)
                    past[i] += advance(h, c, jacobian[i], factors[s, 0, i], factors[s, 1, i], x, limit)
                    if s < read.shape[0]:
                        arguments[s, i] = dot(w[a:b], read[s], numbers[8])
            for i in range(begin, end):
                if past[i] > 0:
                    values[i] = 0

    real = numba.from_dtype(np.dtype(dtype))
    vector, matrix, cube = real[::1], real[:, ::1], real[:, :, ::1]
    whole, counts = numba.int64, numba.int64[:, ::1]
    signature = numba.void(
        whole, whole, cube, vector, vector, vector, counts, vector, cube, matrix, cube, matrix, vector, whole,
        vector, whole[::1], matrix, matrix,
    )  # fmt: skip
    made_rows = numba.njit(signature, fastmath=_FREE, error_model="numpy", nogil=True)(rows)
    change, change_adam = made(_change), made(_change_adam)

    def rest(w: Row, m: Row, v: Row, g: Row, rates: Row, numbers: Row, how: int) -> One:
        return change_adam(w, m, v, g, rates, numbers) if how == 2 else change(w, g, rates, numbers)

    def products(w: Row, table: Any, read: Any, arguments: Any, zero: One) -> None:
        for s in range(read.shape[0]):
            _, width, place = table[s]
            for i in range(arguments.shape[1]):
                arguments[s, i] = dot(w[place + i * width : place + (i + 1) * width], read[s], zero)

    of_rest = real(vector, vector, vector, vector, vector, vector, whole)
    of_products = numba.void(vector, counts, matrix, matrix, real)
    made_rest = numba.njit(of_rest, fastmath=_FREE, error_model="numpy")(rest)
    return _Made(made_rows, made_rest, numba.njit(of_products, fastmath=_FREE, error_model="numpy")(products))


_made = lru_cache(maxsize=None)(_make)


class Compiled:
    """A :class:`model.one_pass.Kernel` on the CPU. Raises :class:`ModelError` without numba, or elsewhere."""

    def __init__(self, segments: list[Segment], flat: Tensor, moments: dict[str, Tensor], reads: Sequence[int]) -> None:
        """``reads``: the component of the state that each gate reads; the gates are the first of the segments."""
        if flat.device.type != "cpu":
            raise ModelError(f"dense_step 'compiled' is for the CPU, not for {flat.device.type}: say dense_step torch")
        self._type = _FLAT[flat.dtype]
        self._made = _made(self._type)
        self._flat = flat.numpy()
        nothing = np.zeros(1, self._type)
        self._m = moments["m"].numpy() if moments else nothing
        self._v = moments["v"].numpy() if moments else nothing
        self._table = np.array([[part.column, part.width, part.place] for part in segments], np.int64)
        self._numbers, self._how = np.zeros(9, self._type), _NOTHING
        self._reads = list(reads) if all(part.place >= 0 for part in segments[: len(reads)]) else []
        self._state: Tensor | None = None
        """The state whose products ``_arguments`` are."""
        self._arguments = np.zeros((len(self._reads), segments[0].width), self._type)
        self._cores = cores()
        self._pool = ThreadPoolExecutor(max(1, self._cores - 1), thread_name_prefix="dense-step")

    def run(self, credit: Sensitivities, known: Known, rule: Rule | None, limit: float) -> Step:
        """See :class:`model.one_pass.Kernel`."""
        values = credit.values
        units = values.shape[0]
        how, back, rates = _NOTHING, known.jacobian[:, 0].t(), known.rates
        self._numbers[6] = limit
        if rule is not None and known.back is not None:
            how, back, rates = _ADAM if rule.adam else _SGD, known.back, [rate * rule.scale for rate in rates]
            keep_m, keep_v = rule.keep_m, rule.keep_v
            self._numbers[:6] = keep_m, 1.0 - keep_m, keep_v, 1.0 - keep_v, rule.root, rule.epsilon
            self._numbers[7], self._how = rule.scale, how
        squares, past = np.empty(units, self._type), np.empty(units, np.int64)
        told = (
            values.numpy(), self._flat, self._m, self._v, self._table, np.array(rates, self._type),
            known.factors.numpy(), known.sources.numpy(), known.jacobian.numpy(), back.contiguous().numpy(),
            self._numbers, how, squares, past, known.after.numpy()[self._reads], self._arguments,
        )  # fmt: skip
        self._state = None
        some = -(-units // (_TURNS * self._cores * _TOGETHER)) * _TOGETHER
        left = iter(range(0, units, some))

        def take() -> None:
            for first in left:
                self._made.rows(first, min(first + some, units), *told)

        others = [self._pool.submit(take) for _ in range(self._cores - 1)]
        take()
        for other in others:
            if not other.cancel():  # it began
                other.result()
        self._state = known.after
        learned = None if how == _NOTHING else torch.tensor(squares.sum(dtype=np.float64))
        return Step(credit, learned, cut=int((past > 0).sum()))

    def arguments(self, state: Tensor) -> Tensor | None:
        """See :class:`model.one_pass.Kernel`."""
        if not self._reads:
            return None
        if self._state is not state:
            read = state.numpy()[self._reads]
            self._made.products(self._flat, self._table, read, self._arguments, self._numbers[8])
            self._state = state
        return torch.from_numpy(self._arguments.copy())

    def learn_rest(self, place: slice, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`model.one_pass.Kernel`."""
        moments = (self._m[place], self._v[place]) if self._how == _ADAM else (self._m, self._v)
        told = self._made.rest(self._flat[place], *moments, gradient.numpy(), rates.numpy(), self._numbers, self._how)
        return torch.tensor(told)


def cores() -> int:
    """How many this process may run on; the torch of a learner that steps with one thread leaves them to this pass."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
