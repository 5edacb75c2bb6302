from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import MODELS, Settings, is_loopback, misspelt

DOCUMENTED = (Path(__file__).parent.parent.parent / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    field = Settings.model_fields[name]
    start = f"| `GPQ_{name.upper()}` |"
    rows = [line for line in DOCUMENTED.splitlines() if line.startswith(start)]
    assert len(rows) == 1, f"docs/settings.md: add one table row for GPQ_{name.upper()}"
    assert field.description in rows[0]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPQ_PORT", "9")
    monkeypatch.setenv("GPQ_API_KEYS", " a, b ,")
    settings = Settings()
    assert settings.port == 9
    assert [key.get_secret_value() for key in settings.api_keys] == ["a", "b"]
    assert "a" not in repr(settings.api_keys)


def test_the_word_none_means_no_path_and_is_not_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPQ_IMPORT_FOLDER", "none")
    monkeypatch.setenv("GPQ_INDEX_FILE", "none")
    assert (Settings().import_folder, Settings().index_file) == (None, None)
    monkeypatch.setenv("GPQ_IMPORT_FOLDER", "./none")
    assert Settings().import_folder == Path("none")
    for keys in ("none", "a-key, None"):
        with pytest.raises(ValidationError, match="anybody guesses"):
            Settings(api_keys=keys)


def test_other_hosts_than_loopback_need_keys_or_an_explicit_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPQ_HOST", "0.0.0.0")
    with pytest.raises(ValidationError, match="GPQ_ALLOW_ANONYMOUS"):
        Settings()
    assert Settings(api_keys="k").host == "0.0.0.0"
    assert Settings(allow_anonymous=True).host == "0.0.0.0"


def test_is_loopback_knows_names_and_addresses() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.8.0.1", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "example.org", ""]))


def test_a_misspelt_setting_is_named_with_a_suggestion() -> None:
    lines = misspelt(["GPQ_MODELS", "GPQ_MODEL", "GPQ_DATA", "PATH", "GPQ_WHATEVER_ELSE"])
    assert lines[0].startswith("GPQ_MODELS is not a setting")
    assert lines[0].endswith("did you mean GPQ_MODEL?")
    assert [line.split()[0] for line in lines] == ["GPQ_MODELS", "GPQ_WHATEVER_ELSE"]


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPQ_MODEL", "")
    assert Settings().model == MODELS / "photos"
    assert "model" not in Settings().model_fields_set
