"""Recording and replaying frames: when it happens, what is copied, how it fails; on a GPU against the plain way."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.geometry.head_params import HeadParams
from portrait4d.inference.frame_graph import DrivenFrame, FrameGraphs
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.rendering.volume_renderer import RenderedRays
from tests.helpers.native import require_native

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class FakeRecording:
    """Does the work again into the same outputs, as a graph would: from the memory it was recorded with."""

    def __init__(self, work: Callable[[], HeadRender]) -> None:
        self.work, self.outputs = work, work()

    def replay(self) -> None:
        again = self.work()
        self.outputs.image_sr.copy_(again.image_sr)
        self.outputs.rays.depth.copy_(again.rays.depth)


class Work:
    """Stands for the network: the picture is the sum of tokens, motion and whether the neck is turned."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: SourceFeatures, frame: DrivenFrame) -> HeadRender:
        self.calls += 1
        picture = source.tokens + frame.motion + int(frame.neck_turned)
        rays = RenderedRays(*(picture.clone() for _ in range(5)))
        return HeadRender(picture, *(picture.clone() for _ in range(6)), rays=rays)


def make_source(value: float) -> SourceFeatures:
    return SourceFeatures(*(torch.full((1, 2), value) for _ in range(3)))


def make_frame(value: float, batch: int = 1, turned: bool = False) -> DrivenFrame:
    params = HeadParams(*(torch.zeros(batch, 6) for _ in range(4)))
    return DrivenFrame(torch.full((batch, 2), value), params, torch.zeros(batch, 25), None, turned, None)


def shown(render: HeadRender) -> float:
    """Return the picture's number, which must be that of the depth too."""
    assert torch.equal(render.image_sr, render.rays.depth)
    return render.image_sr[0, 0].item()


def test_frames_of_equal_sizes_are_replayed_from_the_second_on() -> None:
    work = Work()
    graphs = FrameGraphs(work, FakeRecording)
    source, other = make_source(100), make_source(200)
    first = graphs(source, make_frame(1))
    assert graphs.recorded == 0 and shown(first) == 101
    second = graphs(source, make_frame(2))
    assert graphs.recorded == 1 and shown(second) == 102
    third = graphs(source, make_frame(3))
    assert (shown(third), shown(second)) == (103, 102)  # results are the caller's own
    assert shown(graphs(other, make_frame(4))) == 204
    assert shown(graphs(source, make_frame(5))) == 105  # and back
    assert graphs.recorded == 1


def test_other_sizes_and_turned_necks_have_graphs_of_their_own() -> None:
    graphs = FrameGraphs(Work(), FakeRecording)
    source = make_source(10)
    for _ in range(2):
        assert shown(graphs(source, make_frame(1))) == 11
        assert shown(graphs(source, make_frame(1, turned=True))) == 12
        assert graphs(source, make_frame(1, batch=3)).image_sr.shape == (3, 2)
    assert graphs.recorded == 3
    for batch in range(4, 9):
        for _ in range(2):
            graphs(source, make_frame(1, batch))
            assert graphs.recorded <= 4  # the oldest ones made room
    assert shown(graphs(source, make_frame(5))) == 15


def test_sizes_in_turn_that_are_too_many_are_not_recorded_for_every_frame() -> None:
    recorded = []

    def record(work: Callable[[], HeadRender]) -> FakeRecording:
        recorded.append(work)
        return FakeRecording(work)

    graphs = FrameGraphs(Work(), record)
    for number in range(25):
        assert shown(graphs(make_source(10), make_frame(number, batch=1 + number % 5))) == 10 + number
    assert len(recorded) <= 10


def test_a_failed_recording_costs_one_line_and_no_frame(caplog: pytest.LogCaptureFixture) -> None:
    def record(work: Callable[[], HeadRender]) -> FakeRecording:
        raise RuntimeError("operation not permitted when stream is capturing\nsecond line")

    graphs = FrameGraphs(Work(), record)
    with caplog.at_level(logging.WARNING):
        assert [shown(graphs(make_source(1), make_frame(number))) for number in range(4)] == [1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph of a frame (operation not permitted when stream is capturing); kernels are started one by one"
    ]


def test_what_was_recorded_before_a_failure_serves_on() -> None:
    recorded = []

    def record(work: Callable[[], HeadRender]) -> FakeRecording:
        if recorded:
            raise torch.OutOfMemoryError("CUDA out of memory")
        recorded.append(FakeRecording(work))
        return recorded[0]

    work = Work()
    graphs = FrameGraphs(work, record)
    for batch in (1, 1, 2, 2):
        graphs(make_source(10), make_frame(1, batch))
    calls, replayed = work.calls, []
    recorded[0].replay = lambda: replayed.append(True)
    graphs(make_source(10), make_frame(2))
    assert replayed and work.calls == calls


def open_reenactor(network: Path, folder: Path, device: str, dtype: str = "float32") -> tuple[Reenactor, list[Frame]]:
    """Return a reenactor and its frames; necks are turned."""
    config = ReenactConfig(network, folder, folder, folder / "out", render_size=16, device=device, dtype=dtype)
    reenactor = Reenactor(config)
    return reenactor, [reenactor.load_frame(item) for item in PortraitFolder(folder).items()]


def stack(frames: list[Frame]) -> Frame:
    params = (HeadParams(*map(torch.cat, zip(*(list(vars(f.params).values()) for f in frames), strict=True))),)
    image, camera, motion = (torch.cat([getattr(f, name) for f in frames]) for name in ("image", "camera", "motion"))
    return Frame(image, camera, *params, motion, any(f.neck_turned for f in frames))


def render_all(reenactor: Reenactor, frames: list[Frame]) -> list[Tensor]:
    """Render every driver by two sources in turn, each twice."""
    pictures = []
    for source in frames[:2]:
        features = reenactor.encode_source(source)
        for driver in frames * 2:
            pictures.append(reenactor.render(source, features, driver, reenactor.view(driver)).image_sr)
    return pictures


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
def test_a_batch_of_drivers_gives_what_each_gives(
    device: str, tiny_network: Path, prepared_folder: Callable[..., Path]
) -> None:
    reenactor, frames = open_reenactor(tiny_network, prepared_folder("a", "b", "c"), device)
    # A GPU may round vertices in a batch otherwise, which decides ties of a turned neck's triangles.
    reenactor.config = replace(reenactor.config, use_neck=device == "cpu")
    source, drivers = frames[0], [replace(frame, neck_turned=True) for frame in frames]
    features = reenactor.encode_source(source)
    alone = [reenactor.render(source, features, d, reenactor.view(d)).image_sr for d in drivers]
    together = stack(drivers)
    for _ in range(3):
        pictures = reenactor.render(source, features, together, reenactor.view(together)).image_sr
        torch.testing.assert_close(pictures, torch.cat(alone), atol=1e-4, rtol=0)


def test_a_reenactor_shows_the_same_by_replay(tiny_network: Path, prepared_folder: Callable[..., Path]) -> None:
    reenactor, frames = open_reenactor(tiny_network, prepared_folder("a", "b"), "cpu")
    assert reenactor.graphs is None  # without a GPU
    expected = render_all(reenactor, frames)
    reenactor.graphs = FrameGraphs(reenactor._render, FakeRecording)
    for ours, wanted in zip(render_all(reenactor, frames), expected, strict=True):
        assert torch.equal(ours, wanted)
    assert reenactor.graphs.recorded == 1


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let everything that waits for the GPU raise."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGpu:
    """Graphs give what the plain way gives, which is what the CPU gives."""

    def test_graphs_equal_the_plain_way(
        self, tiny_network: Path, prepared_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_native(monkeypatch)
        reenactor, frames = open_reenactor(tiny_network, prepared_folder("a", "b", "c"), "cuda", "bfloat16")
        replayed = render_all(reenactor, frames)
        assert reenactor.graphs.recorded >= 1
        reenactor.graphs = None
        for ours, expected in zip(replayed, render_all(reenactor, frames), strict=True):
            torch.testing.assert_close(ours, expected, atol=2e-2, rtol=0)  # cuDNN may choose other kernels

    @pytest.mark.parametrize("native", [True, False])
    def test_cuda_gives_what_the_cpu_gives(
        self, native: bool, tiny_network: Path, prepared_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if native:
            require_native(monkeypatch)
        else:
            monkeypatch.setattr("portrait4d.ops.backend.load_native", lambda: False)
        folder = prepared_folder("a", "b")
        for use_neck in (False, True):
            results = []
            for device in ("cuda", "cpu"):
                reenactor, frames = open_reenactor(tiny_network, folder, device)
                reenactor.config = replace(reenactor.config, use_neck=use_neck)
                results.append(render_all(reenactor, frames))
            for picture, wanted in zip(*results, strict=True):
                error = (picture.cpu() - wanted).abs()
                # The last bit of a vertex decides which of two equally near triangles carries a point of a turned neck.
                assert (error.median() if use_neck else error.max()) <= 1e-4

    def test_a_frame_never_waits_for_the_device(
        self, tiny_network: Path, prepared_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_native(monkeypatch)
        reenactor, frames = open_reenactor(tiny_network, prepared_folder("a", "b"), "cuda", "bfloat16")
        features = reenactor.encode_source(frames[0])
        for graphs in (reenactor.graphs, None):
            reenactor.graphs = graphs
            for _ in range(3):
                reenactor.render(frames[0], features, frames[1], reenactor.view(frames[1]))
            with no_waiting():
                reenactor.render(frames[0], features, frames[1], reenactor.view(frames[1]))
