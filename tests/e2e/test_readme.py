"""What the README begins with."""

import json, re, subprocess

from conftest import ROOT


def test_cargo_run_has_one_program_to_run():
    """`cargo run -- dev …` names none: with a second program among the default members it would ask which."""
    commands = re.findall(r"^    cargo run .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands and not any("--bin" in command for command in commands)
    metadata = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    metadata = json.loads(subprocess.run(metadata, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout)
    members = metadata["workspace_default_members"]
    targets = [target for package in metadata["packages"] if package["id"] in members for target in package["targets"]]
    assert [target["name"] for target in targets if "bin" in target["kind"]] == ["althing"]
