"""Shards are made once: items of a source enter, a folder of shards leaves.

Items are taken in parts; a part is done when its record stands in `parts/`, so that a run that
was stopped goes on with the parts that are left. A file that cannot be used is skipped, and listed
with its reason in `skipped.tsv`; one that had to be mended, in `mended.tsv`. A part that was begun
and not finished may hold a file that ends the process that reads it: it is read in a process of its
own, so that this file too can be skipped. Machines that share a folder each take every so manieth
part; what comes of it is the same.

Errors
------
DataError            the folder is of another source, in use or not to be written, or nothing was
                     usable
"""

import hashlib
import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from denseav.models.audio_encoder import SAMPLE_RATE_HZ
from denseav.stream.media.reader import MediaReader
from denseav.train.data.decode import (
    LEAST_SAMPLES,
    UnreadableError,
    cut_video,
    flac,
    media_reader,
    read_picture,
    read_sound,
)
from denseav.train.data.folder_lock import WHOLE, Share, is_lock, locked, remove_locks
from denseav.train.data.shards import Clip, close_shards, count_closed, write_json, write_shards
from denseav.train.data.source_lists import FRAMES, Item, readable
from denseav.train.data.workers import SHARED_MEMORY, shared_memory_bytes, worker_context
from denseav.train.errors import DataError

PART_ITEMS = 64
PIECE_S = 10.0

_PLAN = "prepare.json"
_PARTS = "parts"
_SKIPPED, _MENDED = "skipped", "mended"
_OTHERS = "{} holds something else, or other items' shards; choose another --out"
Notes = dict[str, list[tuple[str, str]]]
"""Keys of items that were skipped or mended, with what there is to say of them."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What came of it: how many clips, and how many files were skipped or mended, as listed.

    Where others have a share too, `parts_left` of theirs may be undone: then nothing is listed yet.
    """

    parts_left: int
    clips: int
    skipped: int
    skipped_list: Path
    mended: int
    mended_list: Path


def prepare(
    items: Sequence[Item],
    out: Path,
    *,
    jobs: int,
    advance: Callable[[int], None],
    share: Share = WHOLE,
) -> Prepared:
    """Make shards of items, or go on where this was stopped.

    Parameters
    ----------
    items : what there is, in an order that does not change.
    out : a new folder, or one that this began with the same items.
    jobs : processes that read and encode.
    advance : called with how many more items are done, those of an earlier run included.
    share : which of them; shards can be read once a run of the whole has found every share done.

    Raises
    ------
    DataError
        When the folder was begun with other items or holds other files, another process has it or
        this share of it, it cannot be written, or no item is usable.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        ours = (out / _PLAN).exists() or all(map(is_lock, out.iterdir()))
    if not ours:  # and nothing is left in it, no lock either
        raise DataError(_OTHERS.format(out))
    if count_closed(out):
        _claim(items, out)
        advance(sum(map(len, parts_of(items, share).values())))
        return _summary(out)
    with locked(out, share):
        _claim(items, out)
        return _prepare(items, out, jobs, advance=advance, share=share)


def parts_of(items: Sequence[Item], share: Share) -> dict[int, Sequence[Item]]:
    """Return the parts of a share, by their numbers."""
    starts = range((share.number - 1) * PART_ITEMS, len(items), share.of * PART_ITEMS)
    return {at // PART_ITEMS: items[at : at + PART_ITEMS] for at in starts}


def _prepare(
    items: Sequence[Item], out: Path, jobs: int, *, advance: Callable[[int], None], share: Share
) -> Prepared:
    parts = parts_of(items, share)
    (out / _PARTS).mkdir(exist_ok=True)
    _run(parts, out, jobs, advance)
    if not share.whole:
        return _summary_of_share(items, out, parts)
    records = [json.loads(_record_path(out, number).read_text()) for number in parts]
    for name in (_SKIPPED, _MENDED):
        lines = [f"{key}\t{readable(what)}\n" for record in records for key, what in record[name]]
        (out / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    if not any(record["index"]["chunks"] for record in records):
        key, reason = records[0][_SKIPPED][0]
        raise DataError(
            f"nothing was usable; {out / _SKIPPED}.tsv has the reasons: {key} {readable(reason)}"
        )
    close_shards(out, [record["index"] for record in records])
    shutil.rmtree(out / _PARTS)
    remove_locks(out)
    return _summary(out)


def _summary_of_share(
    items: Sequence[Item], out: Path, parts: dict[int, Sequence[Item]]
) -> Prepared:
    records = [json.loads(_record_path(out, number).read_text()) for number in parts]
    chunks = [chunk for record in records for chunk in record["index"]["chunks"]]
    every = range(len(parts_of(items, WHOLE)))
    return Prepared(
        parts_left=sum(not _record_path(out, number).exists() for number in every),
        clips=sum(int(chunk["chunk_size"]) for chunk in chunks),
        skipped=sum(len(record[_SKIPPED]) for record in records),
        skipped_list=out / f"{_SKIPPED}.tsv",
        mended=sum(len(record[_MENDED]) for record in records),
        mended_list=out / f"{_MENDED}.tsv",
    )


def _summary(out: Path) -> Prepared:
    skipped_list, mended_list = out / f"{_SKIPPED}.tsv", out / f"{_MENDED}.tsv"
    return Prepared(
        parts_left=0,
        clips=count_closed(out),
        skipped=_lines(skipped_list),
        skipped_list=skipped_list,
        mended=_lines(mended_list),
        mended_list=mended_list,
    )


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def _claim(items: Sequence[Item], out: Path) -> None:
    digest = hashlib.sha256("\n".join(map(_claimed, items)).encode())
    plan = {"items": len(items), "sha256": digest.hexdigest()}
    with _writing(out):
        if all(map(is_lock, out.iterdir())):
            write_json(out / _PLAN, plan)
        begun = json.loads((out / _PLAN).read_text()) if (out / _PLAN).exists() else None
    if begun != plan:
        raise DataError(_OTHERS.format(out))


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write to {out} ({error.strerror}); choose another --out") from None


def _claimed(item: Item) -> str:
    channel = {None: "", "left": " of the first channel"}.get(item.channel, f" {item.channel}")
    track = "" if item.audio_track is None else f" of track {item.audio_track}"
    return f"{item.kind} {item.key}{channel}{track}"


def _run(
    parts: dict[int, Sequence[Item]], out: Path, jobs: int, advance: Callable[[int], None]
) -> None:
    """Make all parts that have no record, again and again while processes die over new ones."""
    left, before = dict(parts), None
    while True:
        for number in [number for number in left if _record_path(out, number).exists()]:
            advance(len(left.pop(number)))
        begun = {number for number in left if (out / _PARTS / f"{number:06d}").exists()}
        if not left:
            return
        if begun == before:
            raise DataError(
                "processes that read files die again and again, likely for want of memory; run the "
                "same command again, with fewer --jobs: what is done is kept"
            )
        before = begun
        with suppress(BrokenProcessPool):
            _run_once(left, out, jobs, advance)


def _run_once(
    left: dict[int, Sequence[Item]], out: Path, jobs: int, advance: Callable[[int], None]
) -> None:
    """Make parts, and take those that are done out of what is left."""
    if not shared_memory_bytes():
        raise DataError(
            f"{SHARED_MEMORY} cannot be written, and processes that read files need it; mount it "
            "(docker run --shm-size), or prepare elsewhere"
        )
    context = worker_context(__name__)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_ignore_interrupt)
    try:
        numbers = {
            pool.submit(make_part, number, part, out): number for number, part in left.items()
        }
        for done in as_completed(numbers):
            done.result()
            advance(len(left.pop(numbers[done])))
    except OSError as error:
        raise DataError(
            f"cannot write to {out} ({error.strerror}); make room and run the same command "
            "again: what is done is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _record_path(out: Path, number: int) -> Path:
    return out / _PARTS / f"{number:06d}.json"


def make_part(number: int, items: Sequence[Item], out: Path) -> None:
    """Write the shards of one part, then the record that says it is done; in a worker.

    Raises
    ------
    OSError
        When something cannot be written.
    """
    work = out / _PARTS / f"{number:06d}"
    clips = _clips_apart if work.exists() else _clips
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    notes: Notes = {_SKIPPED: [], _MENDED: []}
    index = write_shards(work, clips(items, notes))
    for place, chunk in enumerate(index["chunks"]):
        name = f"shard-{number:06d}-{place}.bin"
        (work / chunk["filename"]).replace(out / name)
        chunk["filename"] = name
    work.rmdir()
    write_json(_record_path(out, number), {"index": index, **notes})


def _clips(items: Sequence[Item], notes: Notes) -> Iterator[Clip]:
    for item in items:
        reader = media_reader(item.sound, item.channel, item.audio_track)
        try:
            yield from _of_pictures(item, reader) if item.pictures else _of_video(item, reader)
        except UnreadableError as reason:
            notes[_SKIPPED].append((item.key, str(reason)))
        if reader.mended:
            notes[_MENDED].append((item.key, "; ".join(reader.mended)))


def _clips_apart(items: Sequence[Item], notes: Notes) -> Iterator[Clip]:
    """Read in a process of its own, and go on in another after an item that ends it."""
    if sys.platform == "linux":
        # A worker has one thread, so that it may fork: a hundred times as fast as a fork server.
        context = multiprocessing.get_context("fork")
    else:
        context = multiprocessing.get_context("spawn")
    left = list(items)
    while left:
        receiver, sender = context.Pipe(duplex=False)
        reader = context.Process(target=_send_clips, args=(left, receiver, sender))
        reader.start()
        sender.close()
        try:
            while left:
                sent = receiver.recv()
                if isinstance(sent, Clip):
                    yield sent
                else:
                    for name, lines in sent.items():
                        notes[name] += lines
                    del left[0]
        except (EOFError, OSError):
            reader.join()
            reason = f"the process that read it died (exit code {reader.exitcode})"
            notes[_SKIPPED].append(
                (left.pop(0).key, f"{reason}, by a decoder's fault or for want of memory")
            )
        finally:
            reader.kill()
            reader.join()


def _send_clips(items: Sequence[Item], receiver: Connection, sender: Connection) -> None:
    """Send the clips of each item, and then what there is to say of it."""
    receiver.close()  # only the worker's is left, so that sending fails when the worker is gone
    with suppress(BrokenPipeError):
        for item in items:
            notes: Notes = {_SKIPPED: [], _MENDED: []}
            for clip in _clips([item], notes):
                sender.send(clip)
            sender.send(notes)


def _of_pictures(item: Item, reader: MediaReader) -> list[Clip]:
    there = [path for path in item.pictures if path.exists()]
    if not there:
        raise UnreadableError(f"{item.pictures[0]} is missing")
    wave_S = read_sound(reader)
    if len(wave_S) < LEAST_SAMPLES:
        raise UnreadableError(
            f"{item.sound} has only {len(wave_S) / SAMPLE_RATE_HZ:.2f} s of sound"
        )
    frames = tuple(read_picture(path) for path in there)
    return [Clip(key=item.key, kind=item.kind, frames=frames, audio=flac(wave_S), notes=item.notes)]


def _of_video(item: Item, reader: MediaReader) -> Iterator[Clip]:
    found = False
    for index, (frames, wave_S) in enumerate(cut_video(reader, PIECE_S, FRAMES)):
        if len(wave_S) >= LEAST_SAMPLES:
            found = True
            key = f"{item.key}@{index * PIECE_S:g}"
            notes = item.notes | {"start_s": index * PIECE_S}
            yield Clip(
                key=key, kind=item.kind, frames=tuple(frames), audio=flac(wave_S), notes=notes
            )
    if not found:
        raise UnreadableError(f"{item.sound} has less than 0.41 s of picture and sound together")
