"""What the README tells users to write runs as it stands (but for fewer steps)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_readmes_programs_run(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demos_data").symlink_to(ROOT / "demos_data")
    names: dict = {}
    for block in blocks:
        exec(block.replace("100_000", "4_096").replace("num_envs=64", "num_envs=8"), names)
    assert names["metrics"]["trained"] == 1.0
    assert names["team"].num_timesteps == 4_096
    assert "win_rate" in capsys.readouterr().out
    assert (tmp_path / "runs" / "5m.zip").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
        "demos_data/README.md",
        "results/README.md",
    ],
)
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / name).parent.joinpath(target).exists(), target
