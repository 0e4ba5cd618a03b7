"""Share of the dense-matmul rate that sweeps reach; for scripts/benchmark.py."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gradsim as gs
from gradsim.cli.timing import matmul, medians, timed


class Shape(NamedTuple):
    """A row of the rate table: in one step each cell's tangents take the product [rows, n] @ matrix."""

    name: str
    network: gs.Network
    cells: int
    rows: int  # tangents that meet the matrix, times the samples of a batch
    matrix: tuple[int, int]
    direction: str = "forward"


def shapes() -> list[Shape]:
    """Feed-forward at four widths, then the other families at width 128."""
    square = [(64, 1024), (128, 256), (256, 64), (512, 16)]
    rows = [Shape(f"feedforward {w}", gs.feedforward(w), c, w, (w, w)) for w, c in square]
    rows += [Shape(f"feedforward {w} backward", gs.feedforward(w), c, w, (w, w), "backward") for w, c in square]
    n, batch = 128, 8
    driven = [
        ("vanilla_rnn", gs.vanilla_rnn(n), n, (n, n)),
        ("lstm", gs.lstm(n), 2 * n, (n, 4 * n)),  # the tangents of h and of c
        ("gru", gs.gru(n), n, (n, 3 * n)),
    ]
    rows += [Shape(f"{name} {n}", one, 128, k, m) for name, one, k, m in driven]
    rows += [Shape(f"{name} {n} backward", one, 128, k, m, "backward") for name, one, k, m in driven]
    cures = [
        ("residual", gs.residual(n), n, (n, 2 * n)),  # two matrices of n x n
        ("layernorm", gs.layernorm(n), n, (n, n)),
    ]
    rows += [Shape(f"{name} {n}", one, 128, k, m) for name, one, k, m in cures]
    rows.append(Shape(f"batchnorm {n}, batch {batch}", gs.batchnorm(n, batch), 8, batch * n * batch, (n, n)))
    tokens = 8
    block = gs.transformer(n, 4, tokens)
    for direction in ("forward", "backward"):  # four matrices of n x n, and two of n x 4 n
        name = f"transformer {n}, {tokens} tokens" + " backward" * (direction == "backward")
        rows.append(Shape(name, block, 8, tokens * n * tokens, (n, 12 * n), direction))
    return rows


def sweeping(network: gs.Network, cells: int, depth: int, seeds: int = 1, **options: Any) -> Callable[[], Any]:
    """A whole call of `gs.sweep`, labels and host work included."""
    sigma_w = np.linspace(0.5, 3, cells)
    return lambda: gs.sweep(network, depth=depth, seeds=seeds, sigma_w=sigma_w, progress=False, **options)


def rows(repeats: int, depth: int) -> list[dict[str, Any]]:
    """Share of the dense-matmul rate that the tangents' products reach, all else counted as loss."""
    table = []
    for shape in shapes():
        call = sweeping(shape.network, shape.cells, depth, direction=shape.direction)
        plain = matmul(shape.rows * shape.cells, shape.matrix, depth)
        seconds, ratios = medians(timed({"gradsim": call, "matmul": plain}, repeats), "gradsim")
        arithmetic = 2.0 * shape.cells * shape.rows * shape.matrix[0] * shape.matrix[1]
        arithmetic *= depth
        rate, share = arithmetic / seconds["gradsim"], ratios["matmul"]
        row = {"name": shape.name, "cells": shape.cells, "gflops": rate / 1e9, "share": share}
        table.append({**row, "matmul_gflops": arithmetic / seconds["matmul"] / 1e9, "seconds": seconds["gradsim"]})
        print(f"{shape.name:26s} x {shape.cells:4d}: {rate / 1e9:8.0f} GFLOP/s, {share:.2f} of the matmul rate")
    return table
