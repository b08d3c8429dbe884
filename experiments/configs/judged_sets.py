"""The forget sets of a judgement, told apart by `setting`; configs/judge.py says what each is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from experiments.core import forgetting, values
from experiments.core.config import Section

Fraction = Annotated[values.Share, Field(description="About this share of the training examples.")]


class RandomSet(Section):
    """A random share of the training examples."""

    setting: Literal["random"]
    fraction: Fraction


class ClassSet(Section):
    """Every training example of a class."""

    setting: Literal["class"]
    target: Annotated[int, Field(ge=0, le=values.MOST, description="The class.")]


class MemorisedSet(Section):
    """A share out of those that are memorised least, in between or most."""

    setting: Literal["memorised"]
    tier: Literal["low", "medium", "high"]
    fraction: Fraction


class NearDuplicates(Section):
    """One member of each of the closest pairs of images or texts."""

    setting: Literal["near_duplicates"]
    fraction: Fraction


class Cluster(Section):
    """A cluster of k-means on pixels, or of texts on shares of tokens."""

    setting: Literal["cluster"]
    fraction: Fraction


class Groups(Section):
    """All documents of some speakers, authors or sources."""

    setting: Literal["group"]
    groups: Annotated[forgetting.Names, Field(min_length=1, description="Theirs are forgotten.")]


class Documents(Section):
    """Some documents."""

    setting: Literal["documents"]
    documents: Annotated[forgetting.Names, Field(min_length=1, description="By their names or ids.")]


class Partition(Section):
    """A part that came with the data."""

    setting: Literal["partition"]
    partition: Annotated[str, Field(min_length=1, description="Of tofu:PATH, as forget05; of muse:PATH, forget.")]


Named = ClassSet | Groups | Documents | Partition  # what a comparison forgets so, too
ForgetSet = Annotated[RandomSet | Named | MemorisedSet | NearDuplicates | Cluster, Field(discriminator="setting")]
