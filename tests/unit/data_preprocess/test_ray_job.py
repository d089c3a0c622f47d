"""Work with Ray, without Ray: who gets what, what becomes of workers that die, and what the workers do."""

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_preprocess import ray_job
from data_preprocess.face_networks import FaceNetworks
from data_preprocess.job_report import JobReport
from data_preprocess.pipeline import PreprocessConfig, plan_preprocessing, run_preprocessing
from data_preprocess.prepared_files import load_origin
from data_preprocess.ray_job import RETRIES, FaceWorker, run_on_ray
from portrait4d.files.errors import AssetMissingError, UserError
from tests.helpers.hostile_files import write_faces
from tests.helpers.stub_faces import StubNetworks


class WorkerDiedError(Exception):
    """Stands for Ray's error of that kind."""


@dataclass
class FakeMethod:
    """A method of an actor; its result is made when it is asked for."""

    function: Any

    def remote(self, *arguments: object) -> Any:
        return lambda: self.function(*arguments)


class FakeRay:
    """Ray with workers in this process; `deadly` pictures kill them, as often as they see one."""

    exceptions = SimpleNamespace(RayError=WorkerDiedError, RayTaskError=ZeroDivisionError)

    def __init__(self, deadly: set[str] = frozenset(), starts: bool = True) -> None:
        self.deadly = deadly
        self.starts = starts
        self.given: list[list[int]] = []
        self.resources: dict[str, float] = {"CPU": 4}
        self.options: dict[str, Any] = {}
        self.connections: list[str] = []

    def init(self, address: str, **_options: object) -> None:
        if address == "nowhere":
            raise ConnectionError("no\nanswer")
        self.connections.append(address)

    def shutdown(self) -> None:
        self.connections.append("left")

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, **options: Any) -> Any:
        self.options = options
        return lambda kind: SimpleNamespace(remote=lambda *arguments: self._actor(kind(*arguments)))

    def wait(self, results: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return results[:num_returns], results[num_returns:]

    def get(self, result: Any) -> Any:
        return result()

    def _actor(self, worker: FaceWorker) -> SimpleNamespace:
        def start() -> bool | UserError:
            if not self.starts:
                raise WorkerDiedError("out of\n memory")
            return worker.start()

        def prepare(clip: Any) -> JobReport | UserError:
            self.given.append([clip.first + k for k in range(len(clip.pictures))])
            if self.deadly & {path.name for path in clip.pictures}:
                raise WorkerDiedError
            return worker.prepare(clip)

        return SimpleNamespace(start=FakeMethod(start), prepare=FakeMethod(prepare))


@pytest.fixture
def config(tmp_path: Path) -> PreprocessConfig:
    """Twenty pictures, of which an item has eight."""
    write_faces(tmp_path / "in", 20)
    return PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu", batch=1)


def run(config: PreprocessConfig, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, address: str = "local") -> JobReport:
    monkeypatch.setattr(ray_job, "import_extra", lambda *_: ray)
    monkeypatch.setattr(ray_job, "load_face_networks", lambda *_, **__: StubNetworks().networks)
    return run_on_ray(config, address)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.suffix != ".npz"}


def test_the_same_files_as_on_one_machine(config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    report = run(config, ray, monkeypatch)
    assert (report.written, report.skipped, report.failures) == (20, 0, [])
    assert ray.given == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert ray.options == {"num_cpus": 1, "num_gpus": 0, "max_restarts": -1, "max_task_retries": RETRIES}
    assert ray.connections == ["local", "left"]

    single = replace(config, save_dir=config.save_dir.with_name("single"))
    run_preprocessing(single, StubNetworks().networks)
    assert contents(config.save_dir) == contents(single.save_dir)
    for name in ("000.png", "019.png"):
        mine, other = load_origin(config.save_dir, name), load_origin(single.save_dir, name)
        assert (mine.source, mine.number) == (other.source, other.number) == (name, int(name[:3]))
    assert run(config, ray, monkeypatch).skipped == 20


def test_deadly_pictures_are_found_and_named(config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = config.save_dir / "align_images/.tmp-left.png"
    ray = FakeRay(deadly={"010.png"})
    ray.shutdown = lambda: unfinished.touch()  # as a worker leaves it when it dies
    report = run(config, ray, monkeypatch)
    assert report.written == 19
    assert report.failures == [f"{config.input_dir / '010.png'}: {RETRIES + 1} workers died of it"]
    assert [[number] for number in range(8, 16)] == ray.given[3:]
    assert not unfinished.exists()

    film = replace(config, video=True, save_dir=config.save_dir.with_name("film"))
    report = run(film, ray, monkeypatch)
    assert report.written == 0 and len(report.failures) == 1, "a clip whose face is followed is never split"
    assert report.failures[0].startswith(f"{config.input_dir}: ")


def test_what_ends_the_job(config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no worker could load the networks \(out of memory\)"):
        run(config, FakeRay(starts=False), monkeypatch)
    with pytest.raises(UserError, match=r"--ray nowhere: no Ray answers there \(no answer\)"):
        run(config, FakeRay(), monkeypatch, "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(config, FakeRay(), monkeypatch, f"127.0.0.1:{port}").written == 20
    with socket.socket() as taken, pytest.raises(UserError, match="no Ray answers there .*refused"):
        taken.bind(("127.0.0.1", 0))  # nobody else can listen there, and it does not
        run(config, FakeRay(), monkeypatch, f"ray://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        run(replace(config, device="cuda"), FakeRay(), monkeypatch)
    with pytest.raises(UserError, match="--ray needs at least one"):
        run(replace(config, workers=0), FakeRay(), monkeypatch)


def test_bad_files_are_named_where_nothing_is_left_to_do(
    config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = config.input_dir / "text.mp4"
    film.write_text("no film at all")
    report = run(replace(config, input_dir=film), FakeRay(), monkeypatch)
    assert report.written == 0 and [failure.split(":")[0] for failure in report.failures] == [str(film)]


def test_workers_take_a_gpu_if_there_is_one(config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for device, gpus in (("cpu", 0), ("auto", 1), ("cuda", 1)):
        ray = FakeRay()
        ray.resources["GPU"] = 2
        monkeypatch.setattr(ray_job, "pick_device", lambda _: torch.device("cpu"))
        run(replace(config, device=device), ray, monkeypatch)
        assert ray.options["num_gpus"] == gpus


def test_a_worker_brings_errors_home_as_text(config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_nothing(_: torch.device) -> FaceNetworks:
        raise AssetMissingError("weights", [Path("place")], "somewhere")

    worker = FaceWorker(config, load_nothing)
    clip = plan_preprocessing(config).clips[0]
    for answer in (worker.start(), worker.prepare(clip)):
        assert type(answer) is UserError and "weights is missing: put it at place" in str(answer)
    monkeypatch.setattr(ray_job, "import_extra", lambda *_: FakeRay())
    monkeypatch.setattr(ray_job, "load_face_networks", lambda device, **_: load_nothing(device))
    with pytest.raises(UserError, match="put it at place"):
        run_on_ray(config)
