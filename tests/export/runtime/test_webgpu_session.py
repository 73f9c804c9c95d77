"""WebGPU for real, on a Vulkan in software: right, not fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.export.tiny_bundle import with_changed_weight, write_probed_bundle
from tests.support.export.tiny_exports import exported

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")

# One picture and one sound of the tiny network: a pass of the demo takes seconds here.
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
from denseav.export.runtime.bundle import BundleError, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
from denseav.export.runtime.open_session import open_session
from denseav.export.runtime.proof import read_probes
from denseav.export.runtime.webgpu_session import open_webgpu

bundle = open_bundle(Path(sys.argv[1]))
image, samples = bundle.manifest.image, bundle.manifest.audio.window_samples
image_HW3, wave_S = read_probes(bundle).inputs(image.height, image.width, samples)[0]
heats = []
for session in (OnnxSession(bundle), open_webgpu(bundle)):
    features = session.encode_image(image_HW3), session.encode_audio(wave_S)
    heats.append(session.heatmap(*features, 2))
    print(session.backend, features[0].device_name(), features[1].device_name())
print(np.abs(heats[0] - heats[1]).max() <= 1e-4 * np.abs(heats[0]).max())
for attempt in (
    lambda: open_webgpu(bundle, software=False),
    lambda: open_session(open_bundle(Path(sys.argv[2])), "webgpu"),
):
    try:
        attempt()
    except BundleError as error:
        print(error)
"""


@pytest.mark.skipif(not SWIFTSHADER.exists(), reason="chromium-common is not installed")
def test_a_bundle_on_a_gpu_interface_gives_the_cpus_heatmaps_and_a_wrong_one_is_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "right"
    folder.mkdir()
    exported(folder)
    wrong = with_changed_weight(write_probed_bundle(tmp_path / "wrong"))
    allowed = {
        "VK_ICD_FILENAMES": str(SWIFTSHADER),
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(wrong.folder)],
        env=os.environ | allowed,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    *lines, refused = done.stdout.splitlines()
    assert lines == [
        "onnxruntime-cpu cpu cpu",
        "onnxruntime-webgpu webgpu webgpu",
        "True",
        "WebGPU's only adapter is software; use --device cpu",
    ], done.stderr
    assert "onnxruntime-webgpu in fp32 does not compute" in refused
    assert "is off by 0.70% of its peak, allowed 0.10%" in refused
