"""Reads EDM's checkpoint files as inert data: plain pickles, and archives of torch.save.

Three containers exist: a pickle (``network-snapshot-*.pkl``), a zip written by torch.save
(``training-state-*.pt``), and torch.save's older stream of pickles, which also holds each
storage inside the first kind. All go through the same interpreter and the same list of globals.
"""

from __future__ import annotations

# zipfile decodes names with it, and would import it while it reads a file.
import encodings.cp437  # noqa: F401
import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from regimes.checkpoints.stubs import Context
from regimes.checkpoints.tensors import DTYPES, Bytes, StoredArray
from regimes.errors import BadCheckpoint, UnsafeCheckpoint
from regimes.pickles.machine import Machine, shown
from regimes.pickles.values import Global

MAX_FILE_BYTES = 16 * 2**30
MAX_ENTRIES = 200_000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # magic number, lengths of name and extra field
_ZIP_ERRORS = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError,
    LookupError, struct.error, zlib.error,
)  # fmt: skip


def read_checkpoint(path: str | Path) -> tuple[object, Context]:
    """The content of a checkpoint as inert data.

    Args:
        path: a pickle or an archive of torch.save.

    Returns:
        The object, made of plain values, ``Stub``, ``StoredTensor`` and their like; and what was
        seen while reading.

    Raises:
        BadCheckpoint: if the file is missing, truncated, damaged or of another kind.
        UnsafeCheckpoint: if it asks for anything that is not plain data, or exceeds a bound.
    """
    data = _read_file(Path(path))
    context = Context(len(data), _load_nested)
    try:
        return _read_any(data, context), context
    except BadCheckpoint as error:
        raise type(error)(f"{path}: {error}") from error


def _read_file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnsafeCheckpoint(f"{path}: {size} bytes; at most {MAX_FILE_BYTES} are accepted")
        return path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error


def _read_any(data: bytes, context: Context) -> object:
    if data.startswith(_ZIP_MAGIC):
        return _read_zip(data, context)
    view = memoryview(data)
    machine = Machine(view, context)
    first = machine.run()
    if first == LEGACY_MAGIC and type(first) is int:
        return _read_stream(view, machine.position, context)
    return first


class _Archive:
    """The world of a pickle in an archive of torch.save, where storages live elsewhere."""

    def __init__(self, context: Context, open_storage: Callable[[StoredArray, str], None]) -> None:
        self.find, self.call = context.find, context.call
        self.new, self.build = context.new, context.build
        self.key, self.has_bytearrays = context.key, context.has_bytearrays
        self.open_storage = open_storage
        self.storages: dict[str, StoredArray] = {}

    def persistent(self, pid: object) -> object:
        """The storage of a persistent id, or the class: old streams note a class's source text."""
        if type(pid) is tuple and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # a Global, or nothing that could be instantiated
        return self._storage(pid)

    def _storage(self, pid: object) -> StoredArray:
        """('storage', type, key, location, numel[, None]) -> the storage."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise UnsafeCheckpoint("a persistent id is not that of a storage")
        _, kind, key, _location, numel = pid[:5]
        dtype = DTYPES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Global) else None
        if dtype is None or type(key) is not str or pid[5:] not in ((), (None,)):
            raise UnsafeCheckpoint("a storage is of an unknown kind")
        if key not in self.storages:
            storage = StoredArray(dtype, numel)
            self.open_storage(storage, key)
            self.storages[key] = storage
        storage = self.storages[key]
        if storage.dtype != dtype or storage.numel != numel:
            raise UnsafeCheckpoint(f"storage {shown(key)} is declared twice, differently")
        return storage


def _load_nested(context: Context, raw: Bytes) -> StoredArray:
    """The storage in a byte string made by torch.save: what _load_from_bytes would return."""
    view = memoryview(raw)
    if bytes(view[:4]) == _ZIP_MAGIC:
        loaded = _read_zip(bytes(view), context)
    else:
        machine = Machine(view, _Archive(context, _later))
        if machine.run() != LEGACY_MAGIC:
            raise BadCheckpoint("a nested byte string is not a storage written by torch.save")
        loaded = _read_stream(view, machine.position, context)
    if type(loaded) is not StoredArray:
        raise UnsafeCheckpoint("a nested byte string holds something else than a storage")
    return loaded


def _later(storage: StoredArray, key: str) -> None:
    """In a stream the data come after the pickle."""


def _read_stream(view: memoryview, position: int, context: Context) -> object:
    """The rest of an old torch.save stream, after its magic number."""
    world = _Archive(context, _later)
    machine = Machine(view, world, position)

    def read_next() -> object:
        nonlocal machine
        machine = Machine(view, world, machine.position)
        return machine.run()

    if read_next() != LEGACY_PROTOCOL:
        raise BadCheckpoint("unknown version of torch.save's stream")
    system = read_next()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise BadCheckpoint("torch.save's stream was written on a big-endian machine")
    loaded, keys = read_next(), read_next()
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise BadCheckpoint("damaged stream of torch.save: no list of storages")
    if set(keys) != set(world.storages) or len(keys) != len(world.storages):
        raise BadCheckpoint("damaged stream of torch.save: other storages are listed than used")
    for key in keys:
        _attach(world.storages[key], machine)
    if machine.position != len(view):
        raise BadCheckpoint("damaged stream of torch.save: bytes are left over")
    return loaded


def _attach(storage: StoredArray, machine: Machine) -> None:
    """Give a storage the next bytes of the stream: int64 numel, then the numbers."""
    numel = int.from_bytes(machine.take(8), "little", signed=True)
    left = len(machine.data) - machine.position
    if numel != storage.numel or storage.nbytes > left:
        raise UnsafeCheckpoint(
            f"a storage declares {storage.numel} elements ({storage.nbytes} bytes), but the file "
            f"holds {numel} elements in at most {left} bytes"
        )
    raw = machine.take(storage.nbytes)
    storage.read = lambda: raw


def _read_zip(data: bytes, context: Context) -> object:
    """The object in a zip written by torch.save."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = _entries(archive, len(data))
        root = _root(entries)
        byteorder = entries.get(f"{root}/byteorder")
        if byteorder is not None and archive.read(byteorder) != b"little":
            raise BadCheckpoint("torch.save's archive was written on a big-endian machine")
        pickled = memoryview(archive.read(entries[f"{root}/data.pkl"]))
    except _ZIP_ERRORS as error:
        raise BadCheckpoint(f"damaged archive ({error})") from error

    def open_storage(storage: StoredArray, key: str) -> None:
        entry = entries.get(f"{root}/data/{key}")
        if entry is None:
            raise BadCheckpoint(f"damaged archive: storage {shown(key)} is missing")
        storage.require_size(entry.file_size)
        # Checked once and never copied: a small file could ask for thousands of parts of a large one.
        storage.read = functools.cache(lambda: _content(memoryview(data), entry))

    return Machine(pickled, _Archive(context, open_storage)).run()


def _entries(archive: zipfile.ZipFile, num_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name; torch.save neither compresses nor repeats any."""
    infos = archive.infolist()
    entries = {info.filename: info for info in infos}
    if len(infos) > MAX_ENTRIES or len(entries) != len(infos):
        raise UnsafeCheckpoint(f"the archive repeats names, or has more than {MAX_ENTRIES}")
    if any(i.compress_type != zipfile.ZIP_STORED or i.file_size != i.compress_size for i in infos):
        raise UnsafeCheckpoint("the archive is compressed; torch.save does not compress")
    if sum(info.file_size for info in infos) > num_bytes:
        raise UnsafeCheckpoint("the archive declares more bytes than it holds")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise BadCheckpoint(f"expected one data.pkl in the archive, found {len(roots)}")
    return roots[0]


def _content(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry that is not compressed, as a view into the archive."""
    name = f"damaged archive: {entry.filename[:80]!r}"
    header = data[max(0, entry.header_offset) :][: _LOCAL_HEADER.size]
    if len(header) < _LOCAL_HEADER.size or entry.flag_bits & 1:
        raise BadCheckpoint(f"{name} has no header, or is encrypted")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    content = data[start : start + entry.file_size]
    if magic != _ZIP_MAGIC or len(content) < entry.file_size or zlib.crc32(content) != entry.CRC:
        raise BadCheckpoint(f"{name} is not what its checksum says")
    return content
