"""WebGPU for real, on a Vulkan in software: right, not fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.export.tiny_exports import exported

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")

# One picture and one sound of the tiny network: a pass of the demo takes seconds here.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from denseav.export.runtime.bundle import BundleError, open_bundle
from denseav.export.runtime.onnx_session import OnnxSession
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
try:
    open_webgpu(bundle, software=False)
except BundleError as error:
    print(error)
"""


@pytest.mark.skipif(not SWIFTSHADER.exists(), reason="chromium-common is not installed")
def test_a_bundle_on_a_gpu_interface_gives_the_cpus_heatmaps(tmp_path: Path) -> None:
    exported(tmp_path)
    allowed = {
        "VK_ICD_FILENAMES": str(SWIFTSHADER),
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path],
        env=os.environ | allowed,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "onnxruntime-cpu cpu cpu",
        "onnxruntime-webgpu webgpu webgpu",
        "True",
        "WebGPU's only adapter is software; use --device cpu",
    ], done.stderr
