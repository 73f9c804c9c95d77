"""The options of `denseav-live` that tell it about the room."""

import argparse

from denseav.stream.errors import UsageError

CALIBRATION_MAX_S = 120.0


def add_room(group: argparse._ArgumentGroup) -> None:
    """Add the options to a group."""
    group.add_argument(
        "--calibrate",
        type=float,
        metavar="SECONDS",
        help="learn the room first: keep quiet for so long; what was learned is printed",
    )
    group.add_argument(
        "--energy-floor-dbfs",
        type=float,
        metavar="DBFS",
        help="quieter sound is silence, in which no head is active; default: the model's",
    )
    group.add_argument(
        "--threshold",
        nargs="+",
        type=_threshold,
        default=[],
        metavar="HEAD=HEAT",
        help="from which a head shows, as --calibrate prints it; default: the model's",
    )


def check_room(options: argparse.Namespace) -> None:
    """Raise `UsageError` when a value is senseless, or does not go with the others."""
    floor_dbfs = options.energy_floor_dbfs
    if floor_dbfs is not None and not -120 <= floor_dbfs <= 0:
        raise UsageError(f"--energy-floor-dbfs {floor_dbfs:g} is not within -120 and 0")
    if options.calibrate is None:
        return
    if not 0 < options.calibrate <= CALIBRATION_MAX_S:
        raise UsageError(
            f"--calibrate {options.calibrate:g} is not a number of seconds up to "
            f"{CALIBRATION_MAX_S:g}"
        )
    if options.mic == "none":
        raise UsageError("--calibrate needs sound; leave --mic none out")
    for option in ("offline", "bench", "calibrate_av"):
        if getattr(options, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} does not go with --calibrate; leave it out")


def _threshold(text: str) -> tuple[str, float]:
    head, _, value = text.partition("=")
    try:
        heat = float(value)
    except ValueError:
        heat = float("nan")
    if not head or not abs(heat) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEAD=HEAT as in sound=5.5")
    return head, heat
