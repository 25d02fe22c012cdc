"""A fetched checkpoint becomes a model file under its name, in this user's data folder."""

from __future__ import annotations

from pathlib import Path

from floodem.errors import ModelError
from floodem.legacy.published.catalogue import Published
from floodem.network.named import model_path


def import_network(published: Published, folder: Path) -> Path:
    """Write the model file of a published network, unless the same is there.

    Parameters
    ----------
    folder
        Of the fetch.

    Returns
    -------
    Path
        Where ``--model NAME`` finds it.

    Raises
    ------
    ModelError
        When the checkpoint is damaged.
    StorageError
        When the file system refuses.
    """
    from floodem.legacy.checkpoints.import_model import import_tensorflow_model
    from floodem.network.model_file import load_model, save_model

    network = published.network
    model = import_tensorflow_model(
        folder / network.checkpoint,
        fov=network.fov,
        deltas=network.deltas,
        image_mean=network.image_mean,
        image_stddev=network.image_stddev,
        voxel_size=network.voxel_size,
        pad_value=network.pad_value,
        move_threshold=network.move_threshold,
        licence=network.licence,
        source=network.source,
    )
    path = model_path(published.name)
    if path.is_file():
        try:
            if load_model(path).digest() == model.digest():
                return path
        except ModelError:  # damaged: written anew
            pass
    save_model(model, path, overwrite=True)
    return path
