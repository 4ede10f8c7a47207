"""What users are told: no secret in it."""

from __future__ import annotations

import time

import pytest

from harness.errors import GridError, TrackingError, mask_secrets, plain_message

SECRETS = ("geheim77", "tok88", "anna")
TEXTS = [
    "http://anna:geheim77@host:5000/path",
    "http://anna:geh@eim/geheim77@host/",
    "https://tok88@mirror.org/models",
    "no file data/https:/anna:geheim77@host/x.parquet",
    "postgresql://h/db?user=anna&password=geheim77&ssl=1",
    "postgresql+psycopg2://anna:geheim77@h/db and http://anna:geheim77@h2",
    "mysql://anna:geheim77/tok88@h/db",
    "http:\\/\\/anna:geheim77@host",
    "anna:geheim77@host:5000 has no scheme",
    "http://host/?token=tok88",
    "url: /api/2.0/experiments?a=1&access_token=tok88 (Caused by ...)",
    "https://cdn.org/file?X-Amz-Credential=anna%2F1&X-Amz-Signature=tok88&Policy=geheim77",
    "host=h password=geheim77 dbname=d",
    "PASSWORD: geheim77",
    '{"password": "geheim77 tok88", "token": "tok88"}',
    "{'hf_token': 'tok88'}",
    "MLFLOW_TRACKING_TOKEN=tok88 HF_TOKEN='geheim77'",
    "Authorization: Bearer geheim77",
    "Authorization: Basic geheim77+/=",
    "{'Authorization': 'Token geheim77'}",
    "https://tok88:@host?sig=geheim77#access_token=tok88",
]
PLAIN = [
    "g.yaml: data: {source: tatsu-lab/alpaca, revision: main}",
    "huggyllama/llama-7b@main, 13 GB",
    "train: {token_budget: 2048, max_new_tokens: 8}; eos_token='</s>', bos_token: <s>",
    "sqlite:////home/x y/runs@2/mlflow.db",
    "https://host:5000/path?sslmode=require",
    "paper-7b:llama-7b/base; 12:30:05; key: value; tokens=5; a token: 3",
    "tokens of the closing text; the password is asked for; secrets",
    "hf_transfer and hf_hub_download; a basic implementation, the bearer of news",
    "the first pass: 20 s; key=value",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_secret_is_left(text: str) -> None:
    masked = mask_secrets(text)
    assert not [secret for secret in SECRETS if secret in masked], masked
    assert "***" in masked


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_secrets(text) == text


def test_an_address_stays_readable() -> None:
    assert mask_secrets("http://u:p@host:5/a?token=t&b=1") == "http://***@host:5/a?token=***&b=1"
    assert mask_secrets("postgresql://u:p@h/db") == "postgresql://***@h/db"


def test_secrets_of_the_environment_and_parts_of_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim77")
    monkeypatch.setenv("HF_TOKEN", "abcde")
    assert mask_secrets("refused geheim77, abcde; abcdef") == "refused ***, ***; abcdef"
    said = 'invalid literal: "p@ss@host"; no role "anna", "p/w"'
    masked = mask_secrets(said, "postgresql://anna:p%2Fw@host/db?password=p%40ss")
    assert masked == 'invalid literal: "***@host"; no role "***", "***"'


def test_no_message_to_a_user_holds_one() -> None:
    assert str(TrackingError("MLflow at http://u:p@h: no")) == "MLflow at http://***@h: no"
    assert str(GridError(["a: http://u:p@h", "b"])) == "a: http://***@h\nb"


def test_long_texts_cost_no_time() -> None:
    start = time.monotonic()
    for text in (
        "://a:" * 20_000,
        "password=" * 10_000,
        "x" * 200_000,
        "a:b" * 50_000,
        "?key" * 9_000,
    ):
        mask_secrets(text)
    assert time.monotonic() - start < 10


def test_names_of_a_librarys_classes_stay_out_of_lines() -> None:
    fault = OSError("Couldn't deserialize thrift: TProtocolException: Invalid data")
    assert plain_message(fault) == "Couldn't deserialize thrift: Invalid data"
