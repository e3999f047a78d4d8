"""Published pickles, read by an unpickler that can build what is named beforehand and nothing else."""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

Allowed = Mapping[tuple[str, str], Callable[..., Any]]
"""What a file may ask for, by module and name, and what it gets."""


def _empty_array(_subtype: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray[Any, Any]:
    """What a pickled array starts from; its content follows."""
    return np.empty(shape, dtype)


ARRAYS: Allowed = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""Arrays, in the names that numpy had for them under Python 2."""
GRAPHS: Allowed = {
    **ARRAYS,
    ("scipy.sparse.csr", "csr_matrix"): csr_matrix,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
}
"""Sparse matrices and dictionaries of lists besides."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, allowed: Allowed, encoding: str) -> None:
        super().__init__(io.BytesIO(content), fix_imports=False, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._allowed:
            accepted = ", ".join(map(".".join, self._allowed))
            msg = f"the file asks for {module}.{name}; accepted: {accepted}"
            raise pickle.UnpicklingError(msg)
        return self._allowed[module, name]


def load(content: bytes, allowed: Allowed, encoding: str) -> Any:  # noqa: ANN401 - what the file holds
    """What a pickle holds; `encoding` is that of Python 2's strings, "bytes" to leave them as they are.

    Raises:
        pickle.UnpicklingError: if it asks for anything that is not allowed.
    """
    return _Unpickler(content, allowed, encoding).load()
