"""Good inputs to a Hypothesis strategy of damaged ones: bytes bent anywhere, JSON bent by its tree.

An input is a good one and a few edits, each a plain value, so that shrinking leaves the edit that
matters.
"""

import copy
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (0, 1, 2, 127, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_FORMS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_TEXTS = (
    b"[" * 3000,
    b'{"a":' * 3000,
    b"1" * 5000,
    b"\xff" * 64,
    b"\x00",
    b"\xef\xbb\xbf",
    b"../../x",
    b"\n",
    b'"',
    b"nan",
)
_VALUES = (
    None,
    True,
    [],
    {},
    "",
    "x" * 300,
    "\x1b[2J\n",
    "../../x",
    -1,
    0,
    1,
    10**6,
    2**63,
    10**400,
    1e308,
    [[]] * 9,
    "\udce9",
)

_place = st.floats(0, 1, exclude_max=True)
_bytes_edit = st.one_of(
    st.tuples(st.just("flip"), _place, st.integers(1, 255)),
    st.tuples(st.just("cut"), _place, _place),
    st.tuples(st.just("double"), _place, _place),
    st.tuples(st.just("insert"), _place, st.sampled_from(_TEXTS) | st.binary(max_size=8)),
    st.tuples(st.just("number"), _place, st.sampled_from(_NUMBERS), st.sampled_from(_FORMS)),
)
_tree_edit = st.one_of(
    st.tuples(st.just("set"), _place, st.sampled_from(_VALUES)),
    st.tuples(st.just("remove"), _place),
    st.tuples(st.just("move"), _place, _place),
)


def damaged(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of such inputs, each with up to four edits."""
    of_bytes = st.builds(_bent, st.sampled_from(good), st.lists(_bytes_edit, max_size=4))
    trees = [tree for data in good if (tree := _tree(data)) is not None]
    if not trees:
        return of_bytes
    of_trees = st.builds(_regrown, st.sampled_from(trees), st.lists(_tree_edit, max_size=4))
    return of_trees | of_bytes


def _bent(data: bytes, edits: Sequence[tuple[Any, ...]]) -> bytes:
    for kind, place, *more in edits:
        at = int(place * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ more[0]]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + int(more[0] * (len(data) - at)) :]
        elif kind == "double":
            data = data[:at] + data[at : at + int(more[0] * 200)] + data[at:]
        elif kind == "insert":
            data = data[:at] + more[0] + data[at:]
        elif kind == "number":
            packed = struct.pack("<Q", more[0])[: struct.calcsize(more[1])]
            packed = packed[::-1] if more[1][0] == ">" else packed
            data = data[:at] + packed + data[at + len(packed) :]
    return data


def _tree(data: bytes) -> Any:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict | list) else None


def _regrown(tree: Any, edits: Sequence[tuple[Any, ...]]) -> bytes:
    tree = json.loads(json.dumps(tree))
    for kind, place, *more in edits:
        slots = list(_slots(tree))
        if not slots:
            break
        parent, key = slots[int(place * len(slots))]
        if kind == "set":
            parent[key] = copy.deepcopy(more[0])
        elif kind == "remove":
            del parent[key]
        else:
            other, other_key = slots[int(more[0] * len(slots))]
            parent[key] = json.loads(json.dumps(other[other_key]))
    return json.dumps(tree).encode()


def _slots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a tree, as what holds it and its key or number."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    for key in list(keys):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _slots(tree[key])
