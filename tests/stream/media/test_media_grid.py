"""The grid of `benchmarks/accuracy/media_grid.py`, made short: the reader agrees with FFmpeg."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.accuracy import media_grid as grid

SEEDS = range(28_880, 28_916)
FOUND = (3_424, 100_013, 100_188)
"""What longer runs found: a stamp that goes back, B pictures at 10 fps, HEVC behind a damage."""


def test_the_reader_gives_what_ffmpeg_gives(tmp_path: Path) -> None:
    films = [grid.draw(seed) for seed in (*SEEDS, *FOUND)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda film: grid.compare(film, tmp_path), films))
    different = [(words, asdict(film)) for film, words in zip(films, found, strict=True) if words]
    assert different == []


def test_everything_that_can_be_drawn_is() -> None:
    films = [grid.draw(seed) for seed in SEEDS]
    assert {film.container for film in films} == set(grid.CONTAINERS)
    assert {film.turn for film in films} == set(grid.TURNS)
    assert {film.fault for film in films} == {"", "bytes", "cut", "restart", "stamp"}
    assert {film.pixel_aspect for film in films} == {"1", "64/45", "8/9", "4/3"}
    assert {film.layout for film in films} == {"mono", "stereo", "5.1"}
    assert {film.hole for film in films} == {"", "sound", "pictures"}


def test_a_picture_that_is_not_turned_and_sound_that_is_late_are_noticed(tmp_path: Path) -> None:
    turned = next(film for seed in SEEDS if (film := grid.draw(seed)).turn)
    film = replace(turned, turn="hflip", fault="", hole="")
    path = grid.make(film, tmp_path)
    theirs, mine = grid.oracle(path, film), grid.ours(path)
    assert grid.differences(film, theirs, mine) == []
    unturned = grid.Given(mine.images_NHW3[:, :, ::-1], mine.times_s, mine.wave_S)
    assert "pixels differ" in grid.differences(film, theirs, unturned)[0]
    late = grid.Given(mine.images_NHW3, mine.times_s, mine.wave_S[320:])
    assert "sound -20 ms late" in grid.differences(film, theirs, late)[0]
