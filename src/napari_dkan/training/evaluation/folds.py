"""Folds of a cross-validation: each section, or all sections of each patient, are tested once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import SpotsError
from ..data.prepared_section import PreparedSection
from ..train_settings import FoldUnit


@dataclass(frozen=True)
class Fold:
    """Names of the sections of a fold; validation sections are training sections."""

    name: str
    test: tuple[str, ...]
    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def training_without_validation(self) -> tuple[str, ...]:
        """Sections of the network that chooses the number of epochs."""
        return tuple(n for n in self.training if n not in self.validation)


def make_folds(sections: Sequence[PreparedSection], by: FoldUnit = FoldUnit.section) -> list[Fold]:
    """Make folds that test each section, or all sections of each patient, once.

    The section after the test section is the validation section. With patients all sections of
    the next patient validate, with only two patients one section of the training patient.

    Raises
    ------
    SpotsError
        When there are too few sections or patients, or a patient is unknown.
    """
    names = [s.name for s in sections]
    if len(set(names)) < len(names):
        repeated = next(n for n in names if names.count(n) > 1)
        raise SpotsError(f"The section {repeated} is given twice; give each once.")
    if by is FoldUnit.patient:
        return _make_patient_folds(sections)
    if len(names) < 3:
        raise SpotsError(
            f"Leave-one-section-out takes at least 3 sections, not {len(names)}: one is tested, "
            "one validates and the others are trained on. Give more, or train without it."
        )
    return [
        Fold(
            test,
            (test,),
            tuple(n for n in names if n != test),
            (names[(i + 1) % len(names)],),
        )
        for i, test in enumerate(names)
    ]


def _make_patient_folds(sections: Sequence[PreparedSection]) -> list[Fold]:
    unknown = [s.name for s in sections if not s.patient]
    if unknown:
        raise SpotsError(
            f"The data does not say which patient {', '.join(unknown[:3])} is from; "
            "use --by section."
        )
    by_patient: dict[str, tuple[str, ...]] = {}
    for section in sections:
        by_patient[section.patient] = (*by_patient.get(section.patient, ()), section.name)
    patients = list(by_patient)
    if len(patients) < 2:
        raise SpotsError(
            f"Leave-one-patient-out takes sections of at least 2 patients; all "
            f"{len(sections)} are of patient {patients[0]}. Give sections of others, "
            "or use --by section."
        )
    folds = []
    for i, test in enumerate(patients):
        training = tuple(n for p in patients if p != test for n in by_patient[p])
        next_sections = by_patient[patients[(i + 1) % len(patients)]]
        # with two patients the next one has all training sections
        validation = next_sections if len(patients) > 2 else next_sections[-1:]
        if len(training) == len(validation):
            raise SpotsError(
                f"With patient {test} tested, {training[0]} is the only section left to train "
                "on and none is left to validate on; give more sections."
            )
        folds.append(Fold(f"patient {test}", by_patient[test], training, validation))
    return folds
