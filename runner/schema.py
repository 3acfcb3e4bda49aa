"""The JSON Schema of lab.toml, from its model, so that an editor can complete it: `python -m runner.schema > runner/lab.schema.json`."""

import json
from typing import Any

from runner.roadmap import all_leaves
from runner.tables import SERVICES, LabTable


def lab_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), with the services and the roadmap's leaves as choices."""
    schema = LabTable.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    schema["title"], schema["description"] = "lab.toml", "What a lab is and what it needs; no behaviour. docs/design.md tells more."
    schema["properties"]["services"]["items"] = {"enum": list(SERVICES)}
    schema["properties"]["covers"]["items"] = {"enum": sorted(all_leaves())}
    return schema


def render() -> str:
    """The file's text."""
    return json.dumps(lab_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(render(), end="")
