"""A head of the tiny network, rendered and ready for export."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.inference.plane_cache import PlaneCache, build_plane_cache
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.synthetic_heads.ellipsoid_portrait import sample_look
from tests.helpers.painted_portraits import read_poses, write_painted_portrait

RENDER_SIZE = 16


@dataclass(frozen=True)
class Head:
    """A source driven by another portrait, whose neck is turned, seen from the front."""

    reenactor: Reenactor
    source: Frame
    features: SourceFeatures
    driver: Frame
    view: View

    def render(self, view: View | None = None) -> HeadRender:
        """Render it with the network, from another view if need be."""
        return self.reenactor.render(self.source, self.features, self.driver, view or self.view)

    def cache(self, view: View | None = None) -> PlaneCache:
        """Gather what renders it."""
        view = view or self.view
        return build_plane_cache(self.reenactor, self.source, self.features, self.render(view), view)


def reenact_head(network: Path, folder: Path) -> Head:
    """Paint two portraits in a folder and let the second drive the first; the network is driven by FLAME parameters."""
    for number, pose in enumerate(read_poses()[:2]):
        look = sample_look(np.random.default_rng(number))
        write_painted_portrait(folder, f"portrait-{number}", look, pose, resolution=64)
    reenactor = Reenactor(ReenactConfig(network, folder, folder, folder, render_size=RENDER_SIZE))
    source, driver = (reenactor.load_frame(item) for item in PortraitFolder(folder).items())
    view = reenactor.view(driver)
    assert view.params.pose[0, :3].any()
    return Head(reenactor, source, reenactor.encode_source(source), driver, view)
