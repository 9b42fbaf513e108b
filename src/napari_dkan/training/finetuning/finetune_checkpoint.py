"""Fine-tune a checkpoint on measured sections and report whether it improved."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...inference.device import format_device_name
from ...inference.device_choice import pick_device
from ...inference.device_errors import report_device_errors
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.network.ensemble import (
    combine_members,
    get_linear_path,
    list_dkan_members,
)
from ...model.network.network_interface import ExpressionNetwork
from ..data.section_batches import SpotTokens
from .add_genes import add_genes
from .candidates import (
    UNCHANGED,
    Candidate,
    CandidateChoice,
    CandidateSearch,
    choose_candidate,
)
from .closed_form import ClosedFormFitter, carry_fit
from .finetune_evaluation import (
    compute_finetune_metrics,
    measure_forgetting,
    predict_subset,
    predict_with_original,
    predict_with_ridge,
)
from .finetune_events import (
    FinetuneEventCallback,
    describe_shallow_sections,
    make_gene_map_callback,
    make_started_event,
)
from .finetune_settings import DEFAULT_EPOCHS, AdaptScope, FinetuneSettings
from .finetuned_card import (
    build_finetune_report,
    build_finetuned_card,
    collect_facts,
    describe_new_genes,
)
from .hold_out_split import Subset, split_sections
from .training_section import TrainingSection, TrainingSectionReader, read_training_sections
from .tuned_model import (
    MIN_SHARE,
    FixedPart,
    TunedModel,
    compute_spot_tokens,
    initialize_mean_std,
    split_tokens,
)
from .tuning_loop import TuningLoop
from .tuning_protocol import FinetuneControl, SectionReadStarted

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned checkpoint, not written yet.

    Attributes
    ----------
    is_better
        Whether it is better on the test spots.
    verdict
        The same in one sentence.
    """

    checkpoint: Checkpoint
    report: dict[str, Any]
    is_better: bool
    verdict: str


def finetune_checkpoint(
    checkpoint: Checkpoint,
    sections: Sequence[AnnData],
    settings: FinetuneSettings,
    on_event: FinetuneEventCallback = lambda event: None,
    control: FinetuneControl | None = None,
    *,
    others: Sequence[AnnData] = (),
    new_genes: Path | None = None,
    encoder_weights: Path | None = None,
    few_genes: bool = False,
    device: str | None = None,
    command: str = "finetune",
    title: str = "",
) -> FinetuneResult:
    """Fine-tune every member of a checkpoint on part of the sections' spots.

    `hold_out_split.split_sections` chooses the spots.

    Parameters
    ----------
    others
        Sections that are not trained on; the report has the change on them.
    new_genes
        Gene file whose genes are added where every section measures them.
    few_genes
        See `measured_section.require_panel_genes`.
    device
        Where networks and frozen encoders are computed, as for `pick_device`; fits in closed
        form are computed on the CPU.
    title
        Title on the new card.

    Raises
    ------
    SpotsError
        When a section has too few spots or none of the panel's genes, or is off its image.
    CheckpointError
        For a checkpoint of another method than DKAN.
    DeviceError
        When the device does not work.
    """
    list_dkan_members(checkpoint.network)  # refuses other methods before anything is read
    control, picked = control or FinetuneControl(), pick_device(device)
    with report_device_errors(picked):
        checkpoint = replace(checkpoint, network=_copy_to_device(checkpoint.network, picked))
        added = add_genes(checkpoint, new_genes, sections)
        start, panel = added.checkpoint, added.checkpoint.panel
        reader = TrainingSectionReader(checkpoint, encoder_weights, few_genes, str(picked))
        training_sections, other_sections = _read_sections(
            reader, start, sections, others, on_event
        )
        reach = max(1, checkpoint.label_scale.smoothing // 2)
        split = split_sections(training_sections, settings, reach)
        max_epochs = settings.epochs or (None if settings.seconds else DEFAULT_EPOCHS)
        if added.symbols:
            n_old_genes = len(checkpoint.panel)
            _initialize_new_genes(start.network, n_old_genes, training_sections, split.train)
        tokens = compute_spot_tokens(start.network, training_sections)
        search = CandidateSearch.of_network(start.network, training_sections, tokens, split)
        candidates = search.compare()
        basis = search.choose_levels(candidates)
        scopes = _choose_scopes(settings.adapt, start.network, len(split.train))
        seconds = settings.seconds / len(scopes) if settings.seconds and scopes else None
        own = replace(settings, seconds=seconds)  # of each training
        loops = [
            _build_tuning_loop(
                start.network, training_sections, tokens, search, basis, own, max_epochs, scope
            )
            for scope in scopes
        ]
        shallow = describe_shallow_sections(checkpoint, training_sections)
        plain = choose_candidate(candidates).reason
        on_event(
            replace(
                make_started_event(training_sections, split, loops, len(panel), shallow, plain),
                device=format_device_name(str(picked)),
            )
        )
        n_epochs = kept_epoch = 0
        for loop in loops:
            loop.n_epochs_before, loop.kept_before = n_epochs, kept_epoch
            send_gene_map = make_gene_map_callback(
                checkpoint, training_sections, loop.members, control, on_event
            )
            loop.run(on_event, control, send_gene_map)
            n_epochs, kept_epoch = n_epochs + len(loop.curve), loop.kept_epoch
            if loop.best_epoch:
                candidates.append(Candidate(loop.scope.value, loop.scores_from(basis.scores)))
        choice = choose_candidate(candidates)
        network = _build_network(start.network, search, loops, choice, basis)
        predicted = {
            "before": predict_with_original(
                checkpoint.network, training_sections, split.test, added
            ),
            "after": predict_subset(network, training_sections, split.test),
            "ridge": predict_with_ridge(training_sections, split),
        }
        forgetting = measure_forgetting(checkpoint.network, network, other_sections)
        network = network.cpu()
    is_old_gene = np.arange(len(panel)) < len(checkpoint.panel)
    metrics = compute_finetune_metrics(panel, training_sections, split, predicted, is_old_gene)
    facts = collect_facts(metrics, loops, split, panel.symbols, training_sections, choice)
    facts["candidates"] = [c.to_json() for c in candidates]
    facts["others"] = forgetting
    facts["shallow"] = shallow
    facts["command"] = command
    facts["device"] = "cpu" if picked.type == "cpu" else format_device_name(str(picked))
    if added.symbols:
        new_metrics = compute_finetune_metrics(
            panel, training_sections, split, predicted, ~is_old_gene
        )
        facts["new_genes"] = describe_new_genes(added, new_metrics)
    tuned = replace(
        start,
        network=network,
        card=build_finetuned_card(checkpoint, training_sections, settings, metrics, facts, title),
        sha256="",
        path=None,
    )
    if choice.candidate.name == AdaptScope.everything.value:
        tuned = replace(tuned, reference=None)  # the tokens that it describes changed
    report = build_finetune_report(checkpoint, training_sections, settings, metrics, facts, loops)
    return FinetuneResult(tuned, report, metrics.is_better, facts["verdict"])


def _copy_to_device(network: ExpressionNetwork, device: torch.device) -> ExpressionNetwork:
    """Return a copy on another device; on its own device the network itself."""
    return network if network.device == device else deepcopy(network).to(device)


def _read_sections(
    reader: TrainingSectionReader,
    extended: Checkpoint,
    sections: Sequence[AnnData],
    others: Sequence[AnnData],
    on_event: FinetuneEventCallback,
) -> tuple[list[TrainingSection], list[TrainingSection]]:
    """Read the training sections and the others, with an event before each."""
    count = len(sections) + len(others)

    def on_section(name: str, n_done: int) -> None:
        on_event(SectionReadStarted(name, n_done, count))

    read = read_training_sections(reader, [*sections, *others], extended.panel, on_section)
    return read[: len(sections)], read[len(sections) :]


def _choose_scopes(
    adapt: AdaptScope, network: ExpressionNetwork, n_spots: int
) -> tuple[AdaptScope, ...]:
    """List what is trained: nothing of networks that have no part in the predictions.

    Where a linear path reads the fused tokens, the modules that make these stay as they are.
    """
    scopes, path = adapt.scopes(n_spots), get_linear_path(network)
    if path is None:
        return scopes
    if not bool((path.share.abs() > MIN_SHARE).any()):
        return ()
    reads_tokens = bool(path.weights[: path.token_dim].any())
    return tuple(
        AdaptScope.decoder if s is AdaptScope.everything and reads_tokens else s for s in scopes
    )


def _build_tuning_loop(
    network: ExpressionNetwork,
    sections: Sequence[TrainingSection],
    tokens: Sequence[SpotTokens],
    search: CandidateSearch,
    basis: Candidate,
    settings: FinetuneSettings,
    max_epochs: int | None,
    scope: AdaptScope,
) -> TuningLoop:
    """Build the models, which start from the levels of a candidate."""
    networks, split, options = list_dkan_members(network), search.split, basis.options
    assert options is not None
    fixed = FixedPart.of_network(network, tokens)
    by_section = [split_tokens(t, len(networks)) for t in tokens]
    by_member = list(zip(*by_section, strict=True))

    def tuned_model(
        number: int, fitter: ClosedFormFitter, subset: Subset, seed_offset: int
    ) -> TunedModel:
        i = number % len(networks)
        return TunedModel(
            networks[i],
            by_member[i],
            sections,
            subset,
            fixed.at_levels(fitter.fit_levels(options)),
            scope,
            settings.lr,
            settings.seed + seed_offset,
        )

    members = [tuned_model(i, search.final, split.train, i) for i in range(len(networks))]
    validation_models = [
        (tuned_model(i, fitter, train, 100 + i), validation)
        for i, (fitter, (train, validation)) in enumerate(
            zip(search.fold_fitters, split.folds, strict=True)
        )
    ]
    return TuningLoop(scope, members, validation_models, max_epochs, settings)


def _build_network(
    network: ExpressionNetwork,
    search: CandidateSearch,
    loops: Sequence[TuningLoop],
    choice: CandidateChoice,
    basis: Candidate,
) -> ExpressionNetwork:
    """Return the network of the candidate that is kept; the original itself where none is.

    Trained members keep the linear path beside them, both at the levels they were trained from.
    """
    options = choice.candidate.options
    if choice.candidate.name == UNCHANGED:
        return network
    if options is None:
        options = basis.options
        assert options is not None
        (loop,) = (loop for loop in loops if loop.scope.value == choice.candidate.name)
        members = [m.network.requires_grad_(False).eval() for m in loop.members]
        network = combine_members(members, get_linear_path(network))
    return carry_fit(network, search.final.fit(options), search.final.fit_levels(options))


@torch.no_grad()
def _initialize_new_genes(
    network: ExpressionNetwork,
    n_old_genes: int,
    sections: Sequence[TrainingSection],
    train: Subset,
) -> None:
    """Set mean and standard deviation of the new genes by the training spots."""
    for member in list_dkan_members(network):
        pairs = zip(compute_spot_tokens(member, sections), train.rows, strict=True)
        predicted = [
            member.decode(tokens.select_rows(torch.from_numpy(rows)).fused.z).cpu().numpy()
            for tokens, rows in pairs
        ]
        initialize_mean_std(member, slice(n_old_genes, None), predicted, train.labels)
