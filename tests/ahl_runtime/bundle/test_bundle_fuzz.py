"""Fuzzing the bundle's reader: the very same bundle or a BundleError with the reason, and nothing is written."""

import contextlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahl_runtime.bundle import archive
from ahl_runtime.bundle.bundle import Bundle, open_bundle, write_bundle
from ahl_runtime.bundle.signature import generate, load_private, load_public
from ahl_runtime.core.errors import BundleError

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


class Small:
    """A small signed bundle to damage, alone in its folder, which is the working folder too."""

    def __init__(self, folder: Path, parts: Any) -> None:
        keys = folder / "keys"
        self.path = folder / "work" / "small.ahl"
        for place in (keys, self.path.parent):
            place.mkdir()
        self.key = load_public(generate(keys / "a"))
        generate(keys / "b")
        self.other = load_private(keys / "b")
        members = {**parts[1], "model.onnx": b"m" * 50, "reference/0.png": b"0", "reference/1.png": b"1"}
        self.expected = content(write_bundle(self.path, parts[0], members, sign=load_private(keys / "a")))
        self.whole = self.path.read_bytes()
        self.members = archive.unpack(io.BytesIO(self.whole), 1 << 20)
        self.fields = parts[0]

    def open(self, data: bytes, *, trusted: bool = False) -> Bundle | None:
        """The bundle of these bytes, or None where they were refused as they should be."""
        self.path.write_bytes(data)
        before = self.path.stat()
        try:
            bundle = open_bundle(self.path, trust=self.key if trusted else None)
        except BundleError as error:
            assert str(error).startswith(f"{self.path}: refused: ") and "\n" not in str(error)
            bundle = None
        after = self.path.stat()
        assert list(self.path.parent.iterdir()) == [self.path]
        assert self.path.read_bytes() == data and (after.st_mtime_ns, after.st_ino) == (
            before.st_mtime_ns,
            before.st_ino,
        )
        return bundle

    def same_or_refused(self, data: bytes) -> None:
        """With a trusted key and without."""
        for trusted in (False, True):
            bundle = self.open(data, trusted=trusted)
            assert bundle is None or content(bundle) == self.expected

    def refused(self, data: bytes) -> None:
        assert self.open(data) is None and self.open(data, trusted=True) is None


def content(bundle: Bundle) -> tuple[str, dict[str, bytes]]:
    return bundle.digest, {name: bundle.read(name) for name in sorted(bundle.manifest.members)}


def packed(members: dict[str, bytes]) -> bytes:
    return b"".join(archive.pack(members))


@pytest.fixture(scope="module")
def small(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    made = Small(tmp_path_factory.mktemp("fuzz"), parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.path.parent)
        yield made


def test_the_bundle_to_damage_is_whole(small: Small) -> None:
    for trusted in (False, True):
        bundle = small.open(small.whole, trusted=trusted)
        assert bundle is not None and content(bundle) == small.expected


# --- bytes


@FUZZ
@given(st.data())
def test_mutations(small: Small, data: st.DataObject) -> None:
    changed = bytearray(small.whole)
    place = st.integers(0, len(changed) - 1) | st.integers(len(changed) - 600, len(changed) - 1)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(place)] = data.draw(st.integers(0, 255))
    small.same_or_refused(bytes(changed))


@FUZZ
@given(st.data())
def test_cuts_and_splices(small: Small, data: st.DataObject) -> None:
    whole = small.whole
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    middle = data.draw(st.binary(max_size=64) | st.just(whole[start:end] * 2))
    small.same_or_refused(whole[:start] + middle + whole[end:])


@FUZZ
@given(st.data())
def test_truncated(small: Small, data: st.DataObject) -> None:
    small.refused(small.whole[: data.draw(st.integers(0, len(small.whole) - 1))])


@FUZZ
@given(st.binary(max_size=400), st.sampled_from([b"", LOCAL, END, END + bytes(18)]))
def test_arbitrary_bytes(small: Small, noise: bytes, head: bytes) -> None:
    small.refused(head + noise)


# --- headers that lie: sizes of gigabytes, offsets outside, flags, methods, counts


def _places(data: bytes, mark: bytes) -> list[int]:
    return [i for i in range(len(data)) if data.startswith(mark, i)]


@FUZZ
@given(st.data())
def test_headers_that_lie(small: Small, data: st.DataObject) -> None:
    changed = bytearray(small.whole)
    for _ in range(data.draw(st.integers(1, 3))):
        mark, length = data.draw(st.sampled_from([(LOCAL, 30), (CENTRAL, 46), (END, 22)]))
        start = data.draw(st.sampled_from(_places(small.whole, mark)))
        kind, size = data.draw(st.sampled_from([("<H", 2), ("<I", 4)]))
        value = data.draw(
            st.sampled_from([0, 1, 8, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 99)
        )
        offset = start + data.draw(st.integers(4, length - size))
        struct.pack_into(kind, changed, offset, value % (1 << 8 * size))
    small.same_or_refused(bytes(changed))


@pytest.mark.parametrize("claimed", [2**31, 2**32 - 2, 2**32 - 1])
def test_a_member_that_claims_gigabytes(small: Small, claimed: int) -> None:
    changed = bytearray(small.whole)
    entry = _places(small.whole, CENTRAL)[0]
    local = _places(small.whole, LOCAL)[0]
    for start, first in ((entry, 20), (local, 18)):
        struct.pack_into("<II", changed, start + first, claimed, claimed)
    small.refused(bytes(changed))


def test_a_list_of_too_many_members(small: Small) -> None:
    small.refused(packed({**small.members, **{f"m{i}": b"" for i in range(archive.MAX_MEMBERS)}}))


def test_bombs(small: Small) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as zipped:
            for name, body in small.members.items():
                zipped.writestr(name, body if name != "model.onnx" else bytes(50_000_000))
        assert out.tell() < 1_000_000
        small.refused(out.getvalue())


# --- members: other, more, fewer, twice, in another order, with names that leave the bundle

ESCAPES = st.sampled_from(
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "//x",
        "C:\\x",
        "\\\\host\\x",
        "~/x",
        ".",
        "..",
        "./x",
        "a//b",
        "a/",
        "x\n",
        "-rf",
        "",
    ]
)
NAMES = ESCAPES | st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=20)


@FUZZ
@given(NAMES, st.binary(max_size=9), st.sampled_from(["add", "rename"]))
def test_names(small: Small, name: str, body: bytes, how: str) -> None:
    members = {**small.members, name: body}
    if how == "rename" and name != "model.onnx":
        members[name] = members.pop("model.onnx")
    if members != small.members:
        small.refused(packed(members))


@FUZZ
@given(st.data())
def test_another_order_is_the_same_bundle(small: Small, data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(small.members)))
    bundle = small.open(packed({name: small.members[name] for name in order}), trusted=True)
    assert bundle is not None and content(bundle) == small.expected


@FUZZ
@given(st.data())
def test_members_twice(small: Small, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(small.members)))
    body = data.draw(st.just(small.members[name]) | st.binary(max_size=9))
    once = [(n, b) for n, b in small.members.items()]
    once.insert(data.draw(st.integers(0, len(once))), (name, body))
    small.refused(b"".join(archive.pack(Twice(once))))


class Twice(dict[str, bytes]):
    """Members for `archive.pack` that may hold a name twice."""

    def __init__(self, pairs: list[tuple[str, bytes]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs

    def __len__(self) -> int:
        return len(self.pairs)


@FUZZ
@given(st.data())
def test_members_gone_or_swapped(small: Small, data: st.DataObject) -> None:
    members = dict(small.members)
    a, b = data.draw(st.permutations(sorted(set(members) - {"manifest.sig"})))[:2]
    if data.draw(st.booleans()):
        del members[a]
    else:
        members[a], members[b] = members[b], members[a]
    small.refused(packed(members))


@pytest.mark.parametrize("kind", [stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o666, 0o104755])
def test_links_folders_devices_and_programs(small: Small, kind: int) -> None:
    changed = bytearray(small.whole)
    for start in _places(small.whole, CENTRAL):
        struct.pack_into("<I", changed, start + 38, kind << 16)
    small.refused(bytes(changed))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        for name, body in small.members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            zipped.writestr(info, b"/etc/passwd" if name == "model.onnx" else body)
    small.refused(out.getvalue())


@FUZZ
@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=12), st.binary(max_size=20)), max_size=4),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_of_other_programs(small: Small, others: list[tuple[str, bytes]], compression: int, ours: bool) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as zipped:
        for name, body in [*(small.members.items() if ours else ()), *others]:
            if name.partition("\0")[0]:  # zipfile cuts a name there, and cannot write an empty one
                zipped.writestr(name.encode("utf-8", "replace").decode(), body)
    small.refused(out.getvalue())


# --- the manifest, and who signed it

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@FUZZ
@given(st.data())
def test_manifest_fields(small: Small, data: st.DataObject) -> None:
    manifest = json.loads(small.members["manifest.json"])
    part: Any = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
            break
        part = part[key]
    part[key] = data.draw(JSON)
    text = json.dumps(manifest).encode()
    changed = packed({**small.members, "manifest.json": text})
    bundle = small.open(changed)
    assert bundle is None or set(bundle.manifest.members) == set(content(bundle)[1])
    assert small.open(changed, trusted=True) is None


@FUZZ
@given(st.data())
def test_wrong_signatures(small: Small, data: st.DataObject) -> None:
    text, right = small.members["manifest.json"], small.members["manifest.sig"]
    flipped = st.integers(0, 8 * len(right) - 1).map(
        lambda bit: (int.from_bytes(right, "big") ^ 1 << bit).to_bytes(len(right), "big")
    )
    theirs = st.sampled_from([text, text + b"\n", text[:-1], b""]).map(small.other.sign)
    wrong = data.draw(flipped | theirs | st.binary(min_size=64, max_size=64) | st.just(bytes(64)))
    changed = packed({**small.members, "manifest.sig": wrong})
    bundle = small.open(changed)
    assert bundle is not None and content(bundle) == small.expected  # nobody asked who signed it
    assert small.open(changed, trusted=True) is None


@FUZZ
@given(st.binary(max_size=200).filter(lambda b: len(b) != 64))
def test_signatures_of_other_sizes(small: Small, wrong: bytes) -> None:
    small.refused(packed({**small.members, "manifest.sig": wrong}))


# --- what is read later: the calibration, its digest right, its inside wrong


@FUZZ
@given(st.data())
def test_calibrations(small: Small, data: st.DataObject) -> None:
    name = "calibration/onnxruntime.npz"
    inside = _unzipped(small.members[name])
    array = data.draw(st.sampled_from(sorted(inside)))
    changed = bytearray(inside[array])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + 1] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(BundleError):
        _write_and_read(small, name, _zipped({**inside, array: bytes(changed)}))


def test_a_calibration_of_a_huge_array(small: Small) -> None:
    name = "calibration/onnxruntime.npz"
    inside = _unzipped(small.members[name])
    header = b"(40,), }"
    assert inside["scores.npy"].count(header + b" " * 30) == 1
    for shape in (b"(10**9,)", b"(9999999999,)", b"(99999999999999999999,)", b"(" * 30, b"(-1,)", b"(True,)"):
        text = inside["scores.npy"].replace(header + b" " * len(shape), shape + b", }" + b" " * 5)
        with pytest.raises(BundleError, match=name):
            _write_and_read(small, name, _zipped({**inside, "scores.npy": text}))


def _unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return {i.filename: zipped.read(i) for i in zipped.infolist()}


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        for name, body in members.items():
            zipped.writestr(name, body)
    return out.getvalue()


def _write_and_read(small: Small, name: str, body: bytes) -> None:
    members = {n: b for n, b in small.members.items() if not n.startswith("manifest.")}
    bundle = write_bundle(small.path, small.fields, {**members, name: body})
    try:
        bundle.calibration(bundle.manifest.first)
    except BundleError as error:
        assert str(error).startswith(f"{small.path}: {name}")
        raise
