"""Print the heavy libraries that importing the module named on the command line brings along."""

import importlib
import sys

importlib.import_module(sys.argv[1])
heavy = {"torch", "numpy", "scipy", "skimage", "PIL", "av", "trimesh", "pydantic"} & set(sys.modules)
sys.stdout.write(" ".join(sorted(heavy)))
