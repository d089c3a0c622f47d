"""Packaging of Portrait4D: three packages, their scripts as console entry points, optional extras."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "portrait4d/__init__.py").read_text())[1]


class BuildWithConfigs(build_py):
    """Put configs/ into the package, where `portrait4d.config.load` looks when there is no repository around it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "configs", Path(self.build_lib) / "portrait4d" / "configs", dirs_exist_ok=True)


setup(
    name="portrait4d",
    version=VERSION,
    description="One portrait photo to an animatable 4D head",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.11",
    packages=find_packages(include=["portrait4d", "portrait4d.*", "data_preprocess*", "generate_lmdb*"]),
    package_data={
        "portrait4d": ["ops/csrc/*"]
        + [f"examples/synthetic/**/*.{kind}" for kind in ("jpg", "npy", "json", "jsonl")]
        + ["examples/protocols/*"]
        + ["pretrained_models/README.md", "pretrained_models/motion-encoder-synthetic.safetensors"]
        + ["pretrained_models/landmarks-synthetic.safetensors", "pretrained_models/demo-*.safetensors"]
    },
    install_requires=[
        "torch>=2.6",
        "numpy",
        "scipy",
        "pyyaml",
        "pydantic>=2",
        "click>=8",
        "lmdb",
        "tqdm",
        "Pillow",
        "av",
        "trimesh",
        "scikit-image",
        "safetensors",
        "tensorboard",
    ],
    extras_require={
        "app": ["gradio~=6.31.0"],
        "native": ["ninja"],
        "segmentation": ["transformers"],
        "distributed": ["ray"],
        "export": ["onnx", "onnxscript", "onnxruntime"],
        "test": ["pytest", "pytest-timeout", "ruff", "build"],
    },
    entry_points={
        "console_scripts": [
            "portrait4d-app=portrait4d.app:main",
            "portrait4d-demo=portrait4d.demo:main",
            "portrait4d-reenact=portrait4d.gen_images_portrait4d:main",
            "portrait4d-convert-network=portrait4d.convert_network:main",
            "portrait4d-calc-metrics=portrait4d.calc_metrics_deform:main",
            "portrait4d-fetch-assets=portrait4d.fetch_assets:main",
            "portrait4d-sample-heads=portrait4d.gen_images_genhead:main",
            "portrait4d-export=portrait4d.export_head:main",
            "portrait4d-render-planes=portrait4d.render_planes:main",
            "portrait4d-write-synthetic-portraits=portrait4d.write_synthetic_portraits:main",
            "portrait4d-train-genhead=portrait4d.train_genhead:main",
            "portrait4d-train-recon-v1=portrait4d.train_recon_v1:main",
            "portrait4d-train-recon-v2=portrait4d.train_recon_v2:main",
            "portrait4d-preprocess=data_preprocess.preprocess_dir:main",
            "portrait4d-extract-pdfgc=data_preprocess.extract_pdfgc:main",
            "portrait4d-train-motion-encoder=portrait4d.train_motion_encoder:main",
            "portrait4d-train-landmarks=portrait4d.train_landmarks:main",
            "portrait4d-calc-metrics-motion=portrait4d.calc_metrics_motion:main",
            "portrait4d-calc-metrics-recon=portrait4d.calc_metrics_recon:main",
            "portrait4d-fit-pose-readout=portrait4d.fit_pose_readout:main",
            "portrait4d-animate=portrait4d.animate:main",
        ]
    },
)
