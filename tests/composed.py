"""Settings as the entry points compose them from the configs."""

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from places import CONFIGS

from clipseg.entry import read_settings
from clipseg.run.settings import TrainConfig

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def settings(name: str, schema: type, *overrides: str):
    """Return what the entry point `name` makes of these arguments."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose(name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        OmegaConf.set_struct(composed, False)
        composed.pop("hydra")
        return read_settings(composed, schema)


def train_settings(*overrides: str) -> TrainConfig:
    return settings("train", TrainConfig, *overrides)
