"""The derivative of a denoiser at noisy images.

    J_p = d D(x; sigma) / d x   at x = x_p,      (n, n), n = C H W, rows are outputs

A denoiser treats the images of a batch one by one, so P points are linearised in one pass, and the
products of J with k directions at each of them are one batched computation:

    push   J v     forward mode, one pass per block of directions
    pull   J^T u   reverse mode, one pass per block of directions through a forward pass that is kept

Vectors are rows: V (P, k, n) -> push(V)[p, i] = J_p V[p, i].

The kept forward pass is of as many copies of each point as a block has directions. One copy would do
(``torch.func.vmap`` over the pullback), but batched that way, group norms and attention are taken apart:
on a CPU such a pass takes about 1.4 times as long as that of a plain batch.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from regimes.samplers.config import SampledDenoiser

Mode = Literal["forward", "reverse"]
BLOCK_BYTES = {"cpu": 3 * 2**17, "cuda": 2**22}
"""Of the images that a pass computes side by side, before the network widens them: on a CPU what its
caches bear (32 images of 3x32x32), on a GPU what fills it."""
KEPT_BYTES = {"cpu": 2**30, "cuda": 2**33}
"""Of activations that a forward pass keeps for ``pull``: 16 MiB per image of 3x32x32 in DDPM++ of width 16,
116 MiB in the published one."""


class LinearMap(Protocol):
    """P square matrices of side n that are known by their products."""

    @property
    def shape(self) -> tuple[int, int]:
        """(P, n)."""
        ...

    def push(self, vectors: Tensor) -> Tensor:
        """(P, k, n) -> J v, (P, k, n)."""
        ...

    def pull(self, vectors: Tensor) -> Tensor:
        """(P, k, n) -> J^T v, (P, k, n)."""
        ...


class Dense:
    """Matrices that are held: (P, n, n)."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices

    @property
    def shape(self) -> tuple[int, int]:
        """(P, n)."""
        return self.matrices.shape[0], self.matrices.shape[1]

    def push(self, vectors: Tensor) -> Tensor:
        """(P, k, n) -> J v."""
        return vectors @ self.matrices.mT

    def pull(self, vectors: Tensor) -> Tensor:
        """(P, k, n) -> J^T v."""
        return vectors @ self.matrices


class Linearization:
    """A denoiser's Jacobians at P noisy images of one noise level.

    Args:
        denoiser: in eval mode, without gradients of its own; images of a batch independent.
        x: (P, C, H, W), noisy images on the denoiser's device.
        sigma: their noise level, one that the denoiser knows.
        class_labels: (P, L) one-hot rows for a conditional model: the classes are held fixed.
        block: directions per pass; None takes as many as ``BLOCK_BYTES`` of images hold.

    ``value`` is D(x; sigma). Everything has the dtype in which the denoiser answers: float32 for
    networks, float64 for closed forms. Memory: of the network's activations for P x block images, or
    ``KEPT_BYTES`` if that is less.
    """

    def __init__(
        self,
        denoiser: SampledDenoiser,
        x: Tensor,
        sigma: float | Tensor,
        class_labels: Tensor | None = None,
        *,
        block: int | None = None,
    ) -> None:
        self._image_shape = tuple(x.shape[1:])
        self._size = math.prod(self._image_shape)
        self._sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
        self._denoiser, self._labels = denoiser, class_labels
        with torch.no_grad():
            self.value = denoiser(x, self._sigma, class_labels)  # (P, C, H, W)
        self._x = x.to(self.value.dtype).flatten(1)  # (P, n)
        room = BLOCK_BYTES.get(x.device.type, BLOCK_BYTES["cpu"])
        self.block = block or max(1, room // (4 * self._size * len(x)))
        self._copies: tuple[Tensor, Tensor] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(P, n)."""
        return len(self._x), self._size

    def _flat(self, flat: Tensor, labels: Tensor | None) -> Tensor:
        """(B, n) -> D, (B, n)."""
        x = flat.reshape(len(flat), *self._image_shape)
        return self._denoiser(x, self._sigma, labels).flatten(1)

    def push(self, vectors: Tensor) -> Tensor:
        """J v by forward mode: (P, k, n) -> (P, k, n)."""

        def at_point(x: Tensor) -> Tensor:
            return self._flat(x, self._labels)

        def product(v: Tensor) -> Tensor:
            tangent: Tensor = torch.func.jvp(at_point, (self._x,), (v,))[1]
            return tangent

        over_directions = torch.func.vmap(product, in_dims=1, out_dims=1)
        return self._in_blocks(over_directions, vectors, self.block)

    def pull(self, vectors: Tensor) -> Tensor:
        """J^T v by reverse mode: (P, k, n) -> (P, k, n)."""
        return self._in_blocks(self._pull_block, vectors, min(self.block, self._copies_that_fit))

    def _pull_block(self, vectors: Tensor) -> Tensor:
        """(P, b, n) -> J^T v; fewer directions than are kept leave some copies idle."""
        points, directions, n = vectors.shape
        if self._copies is None or len(self._copies[0]) < points * directions:
            self._copies = None  # before there are others
            self._copies = self._linearize(self._x.repeat_interleave(directions, 0))
        x, outputs = self._copies
        spare = len(x) // points - directions
        cotangents = functional.pad(vectors, (0, 0, 0, spare)).reshape(len(x), n)
        (found,) = torch.autograd.grad(outputs, x, cotangents, retain_graph=True)
        return found.reshape(points, -1, n)[:, :directions]

    def _linearize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the points in order, (B, n) -> a leaf, and D there with its graph."""
        labels = self._labels
        if labels is not None:
            labels = labels.repeat_interleave(len(x) // len(labels), 0)
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            return leaf, self._flat(leaf, labels)

    @functools.cached_property
    def _copies_that_fit(self) -> int:
        """Of every point, in ``KEPT_BYTES``; weights and training images are there once, however many."""
        one, two = (self._graph_bytes(copies) for copies in (1, 2))
        room = KEPT_BYTES.get(self._x.device.type, KEPT_BYTES["cpu"])
        return max(1, room // max(two - one, 1))

    def _graph_bytes(self, copies: int) -> int:
        """Of all that the graph of a forward pass keeps."""
        sizes: dict[int, int] = {}

        def note(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return saved

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved)
        with _plain_arithmetic(), hooks:
            _ = self._linearize(self._x.repeat_interleave(copies, 0))
        return sum(sizes.values())

    def _in_blocks(
        self, product: Callable[[Tensor], Tensor], vectors: Tensor, block: int
    ) -> Tensor:
        with _plain_arithmetic():
            parts = [product(part) for part in torch.split(vectors, block, 1)]
        return torch.cat(parts, dim=1)


@contextlib.contextmanager
def _plain_arithmetic() -> Iterator[None]:
    """Attention as plain products, which has both derivatives; no TF32 in backward passes."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def full_jacobian(local: LinearMap, like: Tensor, *, mode: Mode = "reverse") -> Tensor:
    """All of J, (P, n, n).

    Args:
        local: P maps.
        like: a tensor whose dtype and device the result has, such as ``Linearization.value``.
        mode: reverse makes rows of outputs from one kept forward pass; forward makes columns.

    Cost: n products per point: in reverse mode n / block backward passes of P x block images;
    memory P n^2 on top of one pass.
    """
    points, n = local.shape
    rows = torch.eye(n, dtype=like.dtype, device=like.device).expand(points, n, n)
    return local.pull(rows) if mode == "reverse" else local.push(rows).mT
