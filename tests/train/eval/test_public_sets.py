import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from PIL import Image

from denseav.stream.media.sound import Channel
from denseav.train.data.decode import media_reader, read_sound
from denseav.train.errors import DataError
from denseav.train.eval import public_sets
from denseav.train.eval.avatar import avatar
from denseav.train.eval.items import EvalSet, Item, own_folder, with_files
from denseav.train.eval.read import ade_classes, read_picture, read_truth, read_wave
from tests.support.train import eval_trees

BOTH = {1000: 0.15, 3000: 0.15}


def whole(sets: list[EvalSet]) -> EvalSet:
    """Return the one set there is, after all its files were found."""
    (data,) = sets
    return with_files(data, allow_missing=False)


def test_speech_prompts_have_a_word_and_a_label_and_class_zero_is_dropped(tmp_path: Path) -> None:
    data = whole(public_sets.speech_prompted(eval_trees.speech_prompted(tmp_path)))
    assert (data.kind, data.task, len(data.items)) == ("speech", "segmentation", 4)
    assert [item.category for item in data.items] == ["300", "7", "300", "7"]
    assert data.items[0].word_s == (0.5, 1.2)
    truth, shown = read_truth(data.items[1], (40, 40), stretch=False)
    assert shown
    assert truth[:, :20].all()
    assert not truth[:, 20:].any()


def test_sound_prompts_count_the_whole_sound(tmp_path: Path) -> None:
    data = whole(public_sets.sound_prompted(eval_trees.sound_prompted(tmp_path)))
    assert (data.kind, len(data.items)) == ("sound", 3)
    assert {item.word_s for item in data.items} == {None}
    assert [item.label_class for item in data.items] == [7, 300, 7]


def test_places_pictures_lie_beside_its_folder(tmp_path: Path) -> None:
    root = eval_trees.places(tmp_path / "PlacesAudio_400k_distro")
    data = whole(public_sets.places(root))
    assert (data.kind, data.task, len(data.items)) == ("speech", "retrieval", 4)
    assert data.items[2].image == tmp_path / "places_subset/a/abbey/2.jpg"


def test_audioset_files_are_named_as_pandas_prints_seconds_and_frames_stay(tmp_path: Path) -> None:
    root = eval_trees.audioset(tmp_path)
    data = whole(public_sets.audioset(root))
    assert data.items[1].audio.name == "clip1_31.0_41.mp3"
    frames = [item.image.stem[-1] for item in data.items]
    assert frames == [item.image.stem[-1] for item in whole(public_sets.audioset(root)).items]


def test_vggss_frames_are_found_in_both_places(tmp_path: Path) -> None:
    data = whole(public_sets.vggss(eval_trees.vggss(tmp_path)))
    assert data.stretch
    assert [item.image.name for item in data.items] == [
        "abc_000000.jpg",
        "image_050.jpg",
        "image_050.jpg",
    ]
    truth, _ = read_truth(data.items[0], (10, 10), stretch=True)
    assert truth.nonzero()[0].min() == 2
    assert truth.nonzero()[1].max() == 5


def test_is3_has_boxes_and_with_speech_two_halves_that_sound_together(tmp_path: Path) -> None:
    plain = public_sets.is3(eval_trees.is3(tmp_path / "a", speech=False))
    assert [data.name for data in plain] == ["IS3"]
    assert [item.scene for item in plain[0].items] == ["dog_drum_1"] * 2 + ["cat_bell_2"] * 2
    assert plain[0].items[1].boxes == ((0.5, 0.0, 1.0, 1.0),)
    boxes, sound, speech = public_sets.is3(eval_trees.is3(tmp_path / "b", speech=True))
    for data in (boxes, sound, speech):
        with_files(data, allow_missing=False)
    assert (sound.overlaid_by, speech.overlaid_by) == (speech.name, sound.name)
    # A word recorded for one annotation goes before the category's.
    assert [item.audio.name for item in speech.items[:2]] == ["dog_drum_1_dog.wav", "drum.wav"]


def test_is3_is_found_as_its_archive_names_folders(tmp_path: Path) -> None:
    root = eval_trees.is3(tmp_path, speech=True)
    (root / "visual_frames").rename(root / "images")
    (root / "gt_masks").rename(root / "gt_segmentation")
    for data in public_sets.is3(root):
        assert with_files(data, allow_missing=False).items[0].image.parent.name == "images"


def test_avatars_frames_are_heard_at_their_moment_in_each_scenario(tmp_path: Path) -> None:
    dark, *shown = (
        with_files(data, allow_missing=False) for data in avatar(eval_trees.avatar(tmp_path))
    )
    assert (dark.name, dark.task, len(dark.items)) == ("AVATAR Off-Screen", "off screen", 2)
    assert [item.outlines for item in dark.items] == [None, None]
    assert {data.name: [item.key for item in data.items] for data in shown} == {
        "AVATAR Single-Sound": ["a_00001/00003", "c_00003/00009"],
        "AVATAR Mixed-Sound": ["a_00001/00015"],
        "AVATAR Multi-Entity": ["b_00002/00004"],
    }
    assert {data.dark for data in shown} == {dark.name}
    mixed = shown[1].items[0]
    assert (mixed.category, mixed.word_s) == ("dog and drum", (1.5, 1.5))
    truth_HW, _ = read_truth(mixed, (40, 48), stretch=True)
    # A polygon's corners are cut to whole pixels, and its edges are in.
    assert truth_HW[5:34, 4:21].all()
    assert not truth_HW[:, 21:30].any()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"annotations": [{"task": "Silence", "audio_visual_category": "x"}]}, "Invalid enum"),
        ({"annotations": []}, "does not say in pixels"),
        ({"original_width": 10**9}, "does not say in pixels"),
        (
            {"annotations": [{"task": "Mixed-Sound", "audio_visual_category": "x"}]},
            "does not say in pixels",
        ),
    ],
)
def test_an_annotation_that_is_not_avatars_is_named(
    tmp_path: Path, change: dict[str, object], what: str
) -> None:
    path = eval_trees.avatar(tmp_path) / "metadata/b_00002/00004.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"00004\.json .*{what}"):
        avatar(tmp_path)


def test_a_folder_without_avatars_frames_and_a_lost_clip_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unpack metadata\.zip and video\.zip there"):
        avatar(tmp_path)
    eval_trees.avatar(tmp_path)
    (tmp_path / "video" / "b_00002.mp4").unlink()
    dark, *_ = avatar(tmp_path)
    with pytest.raises(DataError, match=r"1 files are missing: .*b_00002\.mp4"):
        with_files(dark, allow_missing=False)


def test_an_own_folder_becomes_a_set_for_each_kind_and_question(tmp_path: Path) -> None:
    sets = {(data.kind, data.task): data for data in own_folder(eval_trees.own(tmp_path))}
    assert set(sets) == {("speech", "retrieval"), ("sound", "segmentation"), ("sound", "boxes")}
    assert sets["sound", "segmentation"].items[0].word_s == (0.1, 0.6)
    assert sets["sound", "boxes"].items[0].boxes == ((0, 0, 0.5, 1), (0.6, 0.6, 0.9, 0.9))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0.png,0.wav,music,,,", "kind is 'music'; write speech or sound"),
        ("0.png,0.wav,sound,,,0 0 1", "not enough values"),
        ("0.png,0.wav,sound,,,a b c d", "could not convert string to float: 'a'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "items.csv").write_text(f"image,audio,kind,category,mask,boxes\n{line}\n")
    with pytest.raises(DataError, match=f"line 2: {what}"):
        own_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("image,audio\na,b\n", "lacks the columns kind"),
        ("image,audio,kind\n", "has no rows"),
        ("image,audio,kind,colour\na,b,sound,red\n", "unknown columns colour; known are audio"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(DataError, match=what):
        own_folder(tmp_path)


def test_missing_files_are_listed_or_left_out(tmp_path: Path) -> None:
    (data,) = public_sets.vggss(eval_trees.vggss(tmp_path))
    (tmp_path / "audio" / "abc_000001.wav").unlink()
    with pytest.raises(DataError, match=r"1 files are missing: .*abc_000001\.wav; .*--allow-miss"):
        with_files(data, allow_missing=False)
    kept = with_files(data, allow_missing=True)
    assert [item.key for item in kept.items] == ["abc_000000", "abc_000002"]
    assert [path.name for path in kept.missing] == ["abc_000001.wav"]


def test_an_empty_set_is_an_error(tmp_path: Path) -> None:
    eval_trees.vggss(tmp_path)
    (tmp_path / "vggss.json").write_text("[]")
    (data,) = public_sets.vggss(tmp_path)
    with pytest.raises(DataError, match="VGG-SS holds no items"):
        with_files(data, allow_missing=True)


def test_two_items_of_one_name_are_an_error(tmp_path: Path) -> None:
    eval_trees.vggss(tmp_path)
    entries = json.loads((tmp_path / "vggss.json").read_text())
    (tmp_path / "vggss.json").write_text(json.dumps([*entries, entries[0]]))
    (data,) = public_sets.vggss(tmp_path)
    with pytest.raises(DataError, match="two items 'abc_000000'"):
        with_files(data, allow_missing=False)


@pytest.mark.parametrize("layout", ["places", "vggss", "is3", "audioset", "speech_prompted"])
def test_a_folder_of_something_else_is_named(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"cannot be read .* check the folder's layout"):
        getattr(public_sets, layout)(tmp_path)


@pytest.mark.parametrize(
    ("layout", "name"),
    [("places", "metadata/val.json"), ("vggss", "vggss.json"), ("is3", "synthetic3240_bbox.json")],
)
def test_json_of_another_shape_is_named(tmp_path: Path, layout: str, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('[{"something": "else"}]')
    with pytest.raises(DataError, match=f"{name} is not as released"):
        getattr(public_sets, layout)(tmp_path)


def test_ade_classes_are_red_and_green(tmp_path: Path) -> None:
    label = np.array([[0, 7, 300], [3661, 255, 256]])
    eval_trees.ade_label(tmp_path / "l.png", label)
    assert np.array_equal(ade_classes(Image.open(tmp_path / "l.png")), label)


def test_pictures_are_cut_in_the_middle_or_stretched(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    Image.fromarray(pixels).save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png", (20, 20), stretch=False).min() == 255
    stretched = read_picture(tmp_path / "p.png", (20, 20), stretch=True)
    assert stretched.shape == (20, 20, 3)
    assert 0.4 < (stretched > 127).mean() < 0.6


def test_pictures_are_upright_as_in_training(tmp_path: Path) -> None:
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x112] = 6
    side = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    side.save(tmp_path / "p.jpg", exif=exif, quality=100)
    seen = read_picture(tmp_path / "p.jpg", (40, 20), stretch=False)
    assert seen[:8].mean() > 240
    assert seen[12:].mean() < 15


def item(audio: Path, channel: Channel | None = None) -> Item:
    return Item(key="k", image=audio, audio=audio, channel=channel)


@pytest.mark.parametrize(("channel", "tones"), [("left", {1000: 0.3}), (None, BOTH)])
def test_a_wave_is_the_mean_or_the_left_channel_at_16_khz(
    tmp_path: Path, channel: Channel | None, tones: dict[int, float]
) -> None:
    eval_trees.stereo_mp3(tmp_path / "a.mp3", 1000, 3000)
    wave_S = read_wave(item(tmp_path / "a.mp3", channel))
    assert wave_S.dtype == np.float32
    assert len(wave_S) == pytest.approx(16_000, abs=1500)  # mp3 pads its ends
    time_S = np.arange(2_000, 14_000) / 16_000
    for hz in (1000, 3000):
        level = 2 * np.abs(np.mean(wave_S[2_000:14_000] * np.exp(-2j * np.pi * hz * time_S)))
        assert level == pytest.approx(tones.get(hz, 0.0), abs=0.02)
    whole_S = read_sound(media_reader(tmp_path / "a.mp3", channel))  # as prepared, and as live
    np.testing.assert_allclose(wave_S[500:-500], whole_S[500 : len(wave_S) - 500], atol=0.01)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 22_050, 16_000])
def test_waves_are_resampled_as_the_released_evaluation_does(tmp_path: Path, rate_hz: int) -> None:
    noise_S = np.random.default_rng(0).uniform(-0.5, 0.5, rate_hz).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise_S, rate_hz, subtype="FLOAT")
    released_S = torchaudio.functional.resample(torch.from_numpy(noise_S), rate_hz, 16_000)
    np.testing.assert_allclose(read_wave(item(tmp_path / "a.wav")), released_S, atol=1e-6)


def test_files_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF no wave at all")
    (tmp_path / "p.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.wav is not a media file"):
        read_wave(item(tmp_path / "a.wav"))
    with pytest.raises(DataError, match=r"p\.jpg cannot be read as a picture"):
        read_picture(tmp_path / "p.jpg", (8, 8), stretch=True)
    eval_trees.sound(tmp_path / "empty.wav", 100, 0.0)
    with pytest.raises(DataError, match=r"empty\.wav has no sound"):
        read_wave(item(tmp_path / "empty.wav"))
