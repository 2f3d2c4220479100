"""Result folders: whole or not there, of one configuration, with what is needed to repeat them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from regimes.errors import BrokenArtifact, ConfigError
from regimes.jobs.support.result_folder import CONFIG, ResultFolder, options, slug
from regimes.storage.artifacts import Recipe


@dataclass(frozen=True, kw_only=True)
class Made(Recipe):
    kind: ClassVar[str] = "made"
    code_version: ClassVar[int] = 1

    question: str
    depends_on: str = ""


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Outer:
    image_size: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    source: str = "digits"
    flag: bool = False
    on: bool = True
    inner: Inner = field(default_factory=Inner)


def folder(uri, question="why", depends_on=""):
    recipe = Made(question=question, depends_on=depends_on)
    return ResultFolder(uri, "job", "run", recipe, identity=("question",))


def write(made):
    made.write_files([(CONFIG, made.config(more=1).encode()), ("figures/a.png", b"png")])


def test_a_folder_is_complete_once_everything_is_written(uri):
    made = folder(uri)

    def interrupted():
        yield "a", b"a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.write_files(interrupted())
    assert not made.is_complete()
    write(made)
    assert folder(uri).is_complete()
    assert folder(uri).read("figures/a.png") == b"png"


def test_results_that_rest_on_other_artifacts_are_not_complete_but_may_be_replaced(uri):
    write(folder(uri))
    other = folder(uri, depends_on="newer")
    other.check_name()
    assert not other.is_complete()


def test_another_question_under_the_same_name_is_refused(uri):
    write(folder(uri))
    folder(uri).check_name()
    with pytest.raises(
        ConfigError,
        match=r"results of another configuration \(question why, now how\); choose another --name",
    ):
        folder(uri, question="how").check_name()
    folder(uri).remove()
    folder(uri, question="how").check_name()


def test_a_changed_file_is_noticed(tmp_path):
    made = folder(str(tmp_path))
    write(made)
    (tmp_path / "job" / "run" / "figures" / "a.png").write_bytes(b"pnG")
    with pytest.raises(BrokenArtifact, match=r"figures/a\.png"):
        folder(str(tmp_path)).is_complete()


def test_config_holds_the_recipe_and_the_versions(uri):
    made = folder(uri)
    config = json.loads(made.config(left_out=("x",)))
    assert config["recipe"]["question"] == "why"
    assert config["left_out"] == ["x"]
    assert config["packages"]["numpy"]
    assert set(config) == {"recipe", "regimes", "python", "packages", "left_out"}


def test_options_turn_one_configuration_into_another():
    assert options(Outer(), Outer()) == []
    changed = Outer(
        image_size=8, sizes=(4,), source="my images", flag=True, on=False, inner=Inner(steps=9)
    )
    assert options(Outer(), changed) == [
        "--image-size 8",
        "--sizes 4",
        "--source 'my images'",
        "--flag",
        "--no-on",
        "--inner.steps 9",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b/my images.zip", "my-images"), ("../..", ""), ("x$(rm)", "x-rm"), ("édm", "édm")],
)
def test_slugs_stand_in_folder_names(text, expected):
    assert slug(text) == expected
