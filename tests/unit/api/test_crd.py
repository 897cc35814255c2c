"""The definition made from the models is structural, bounded, documented and up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from finetune_api.crd import COLUMNS, crd, root_schema, structural
from finetune_api.dataset import DEFAULT_VALIDATION_FRACTION
from finetune_api.exit_codes import MEANINGS, ExitCode
from finetune_api.failures import FailureReason
from finetune_api.generate import CRD_FILE, MAX_CRD_BYTES, REPOSITORY, generated, kept_bytes, main
from finetune_api.job import DEFAULT_REGION, FIXED_FOR_A_RUN, TRAINING_INPUTS, FineTuneJobSpec
from finetune_api.meaning import literal
from finetune_api.options import DEFAULT_BETA, DEFAULT_TEMPERATURE, DEFAULT_THRESHOLD
from finetune_api.placement import WITHOUT_A_DOMAIN
from finetune_api.reference import reference
from finetune_api.schema import job_schema
from finetune_api.training import DEFAULT_INTERVAL, DEFAULT_MAX_LENGTH

STRUCTURAL_KEYS = (
    {
        "type",
        "description",
        "format",
        "enum",
        "required",
        "properties",
        "items",
        "additionalProperties",
        "default",
        "pattern",
    }
    | {"minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minItems", "maxItems", "minProperties", "maxProperties"}
)


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


ROOT = root_schema()
SPEC = dict(nodes(ROOT["properties"]["spec"], "spec"))
STATUS = dict(nodes(ROOT["properties"]["status"], "status"))
ALL = SPEC | STATUS
RULES_OF_SPEC = ROOT["properties"]["spec"]["x-kubernetes-validations"]
ALL_AS_ONE = RULES_OF_SPEC[0]


def test_the_files_in_the_repository_are_what_the_models_say() -> None:
    for path, text in generated().items():
        assert (REPOSITORY / path).read_text(encoding="utf-8") == text, f"{path}: run `make generate`"


@pytest.mark.slow
def test_drift_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr("finetune_api.generate.REPOSITORY", tmp_path)
    assert main(["--check"]) == 1
    assert f"{CRD_FILE} is not what the models say; run `make generate`" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_the_definition_fits_in_the_annotation_of_a_client_side_apply() -> None:
    assert kept_bytes(crd()) < MAX_CRD_BYTES


def test_what_guards_a_field_against_changes_takes_little_of_the_definition() -> None:
    rules = [*ROOT["x-kubernetes-validations"], *ROOT["properties"]["spec"]["x-kubernetes-validations"]]
    guards = [rule for rule in rules if "oldSelf" in rule["rule"]]
    fields = [path for path, node in SPEC.items() if path.count(".") and "properties" not in node]
    assert kept_bytes({"rules": guards}) < 250 * len(fields), "a rule that says a field's whole path takes 1,000 bytes"


@pytest.mark.parametrize("path", ALL)
def test_a_node_is_structural(path: str) -> None:
    node = ALL[path]
    assert "type" in node or "x-kubernetes-int-or-string" in node
    unknown = {key for key in node if key not in STRUCTURAL_KEYS and not key.startswith("x-kubernetes-")}
    assert not unknown


@pytest.mark.parametrize("path", SPEC)
def test_a_value_of_the_spec_is_bounded(path: str) -> None:
    node = SPEC[path]
    if "x-kubernetes-preserve-unknown-fields" in node:
        return
    bounds = {
        "string": "enum" in node or "maxLength" in node,
        "array": "maxItems" in node,
        "integer": {"minimum", "maximum"} <= set(node),
        "number": {"minimum", "maximum"} <= set(node),
        "object": "properties" in node or "maxProperties" in node,
        "boolean": True,
    }
    assert bounds.get(node.get("type", ""), "maxLength" in node)


@pytest.mark.parametrize("path", STATUS)
def test_a_text_list_or_map_of_the_status_is_bounded(path: str) -> None:
    node = STATUS[path]
    if node["type"] == "string":
        assert {"maxLength", "enum", "format"} & set(node)
    if node["type"] == "array":
        assert "maxItems" in node


@pytest.mark.parametrize("path", [path for path in ALL if not path.endswith("[]")])
def test_a_field_is_described(path: str) -> None:
    assert re.fullmatch(r"[A-Z`].*\.", ALL[path]["description"])


def test_only_the_status_has_a_default() -> None:
    assert [path for path, node in ALL.items() if "default" in node] == ["status"]


JOB = dict(nodes(job_schema(), "job"))
RESOLVED = {
    "job.spec.classification.threshold": DEFAULT_THRESHOLD,
    "job.spec.similarity.temperature": DEFAULT_TEMPERATURE,
    "job.spec.textGeneration.beta": DEFAULT_BETA,
    "job.spec.checkpoints.interval": DEFAULT_INTERVAL,
    "job.spec.dataset.validationFraction": DEFAULT_VALIDATION_FRACTION,
    "job.spec.storage.region": DEFAULT_REGION,
    "job.spec.training.maxLength": DEFAULT_MAX_LENGTH,
}
"""What the trainer takes for a field that is absent, and that has to be: another field may stand in for it."""


def numbers(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"(?<![A-Za-z0-9-])[0-9][0-9.]*(?:e-?[0-9]+)?", text)}


def values_below(path: str) -> list[Any]:
    return [RESOLVED.get(inner, node.get("default")) for inner, node in JOB.items() if inner.startswith(f"{path}.")]


@pytest.mark.parametrize("path", [path for path in JOB if "default" in JOB[path]])
def test_the_description_names_the_default_that_a_field_has(path: str) -> None:
    described = re.search(r"Default: (.+?)\.(?=\s|$)", JOB[path]["description"])
    assert described
    said, default = described[1], RESOLVED.get(path, JOB[path]["default"])
    if isinstance(default, dict):
        assert numbers(said) <= {number for value in values_below(path) for number in numbers(str(value))}
    elif default is None:
        assert not re.match(r"`?[0-9]", said), "a value that is stated is compared with the one that is used"
    elif isinstance(default, bool) or not isinstance(default, int | float):
        assert re.match(rf"`?{re.escape(str(default).lower() if isinstance(default, bool) else default)}\b", said)
    else:
        assert default in numbers(said)


def test_each_fixed_field_has_a_rule_of_its_own_on_the_spec() -> None:
    rules = [rule for rule in ROOT["properties"]["spec"]["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    assert [rule["fieldPath"] for rule in rules] == [f".{field}" for field in FIXED_FOR_A_RUN if field != "image"]
    assert set(TRAINING_INPUTS) <= set(FIXED_FOR_A_RUN)
    assert all("runId" in rule["message"] for rule in rules)


def test_the_rules_of_a_spec_are_one_and_it_tells_each_that_is_broken() -> None:
    """Each rule of its own took the API server as long as all do now, and it asks them again at each write of a status."""
    told = [literal("; " + rule.message) for rule in FineTuneJobSpec.rules if not rule.walks]
    assert len(told) > 50
    assert not [text for text in told if text not in ALL_AS_ONE["messageExpression"]]
    by_themselves = [rule.message for rule in FineTuneJobSpec.rules if rule.walks]
    assert [rule["message"] for rule in RULES_OF_SPEC if "oldSelf" not in rule["rule"]][1:] == by_themselves


def test_what_many_rules_of_a_spec_read_is_read_once() -> None:
    for read in ("self.task", "self.dataset.?columns", "self.?training", "self.?method", "self.?resources"):
        assert ALL_AS_ONE["rule"].count(read) == 1
        assert ALL_AS_ONE["messageExpression"].count(read) == 1


def test_of_a_quantity_in_a_map_no_more_is_asked_than_kubernetes_1_31_takes() -> None:
    """Its cost is taken there for that of the longest request, and 16 keys of it: a definition with more is refused, as ours was."""
    rules = [rule["rule"] for node in SPEC.values() for rule in node.get("x-kubernetes-validations", ())]
    patterns = [pattern for rule in rules for pattern in re.findall(r"s\[k\]\)?\.matches\(r?'(.*?)'\)", rule)]
    assert len(patterns) == 4
    assert max(map(len, patterns)) <= 4
    converted = [rule for rule in rules if re.search(r"(string|quantity)\([^)]*s\[k\]", rule)]
    assert [rule.count(str(list(WITHOUT_A_DOMAIN)) + ".all(k, ") for rule in converted] == [1]


def test_what_nobody_touched_is_compared_as_a_whole_before_it_is_read_in_parts() -> None:
    rules = [rule for rule in ROOT["properties"]["spec"]["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    fields = [rule["fieldPath"].removeprefix(".") for rule in rules]
    assert not [
        field
        for field, rule in zip(fields, rules, strict=True)
        if not rule["rule"].startswith(f"self.?{field} in [oldSelf.?{field}]")
    ]


def test_only_labels_are_a_set_because_a_fixed_set_would_change_its_order_unseen() -> None:
    sets = [path for path, node in SPEC.items() if node.get("x-kubernetes-list-type") == "set"]
    assert sets == ["spec.dataset.labels"]


def test_conditions_are_a_map_by_type() -> None:
    conditions = ROOT["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


def test_the_job_is_no_part_of_the_category_all() -> None:
    names = crd()["spec"]["names"]
    assert names["shortNames"] == ["ftj"]
    assert "categories" not in names


def test_the_columns_fit_in_a_terminal_and_the_message_is_the_last_of_the_wide_ones() -> None:
    assert [name for name, _, _, wide in COLUMNS if not wide] == [
        "Phase",
        "Reason",
        "Progress",
        "Remaining",
        "Metric",
        "Age",
    ]
    assert COLUMNS[-1] == ("Message", "string", ".status.message", True)


def test_the_chart_carries_the_same_definition() -> None:
    files = generated()
    assert files["charts/finetune-operator/files/crd.yaml"] == files[CRD_FILE]


def test_what_a_structural_schema_cannot_say_is_an_error() -> None:
    class Odd(BaseModel):
        number: int = Field(multiple_of=2)

    with pytest.raises(ValueError, match="multipleOf"):
        structural(Odd.model_json_schema())


def test_a_choice_between_two_types_is_an_error() -> None:
    class Either(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="too many values"):
        structural(Either.model_json_schema())


def test_the_reference_names_every_field_reason_and_exit_code() -> None:
    page = reference()
    for path in SPEC:
        assert f"`{path.rpartition('.')[2].removesuffix('[]')}`" in page or path == "spec"
    assert all(f"| `{reason}` |" in page for reason in FailureReason)
    assert all(f"| {int(code)} |" in page for code in ExitCode)
    assert set(MEANINGS) == set(ExitCode)


def test_every_link_of_the_reference_leads_to_a_heading() -> None:
    page = reference()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in page.splitlines()
        if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings
