"""Servers for state stores."""

import itertools
from collections.abc import Iterator

import botocore.session
import pytest

from tests.state.dynamodb import running_dynamodb

_names = itertools.count()


@pytest.fixture(scope="session")
def dynamodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one local DynamoDB for the whole run."""
    with running_dynamodb(tmp_path_factory.mktemp("dynamodb")) as url:
        yield url


@pytest.fixture(scope="session")
def descriptions_of_aws() -> Iterator[None]:
    """Each client would read megabytes of descriptions of AWS's services, most of its cost; here all share one copy."""
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda path=None: loader)
        yield


@pytest.fixture
def dynamodb_url(dynamodb_server: str, descriptions_of_aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, with what AWS clients look for in the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return dynamodb_server


@pytest.fixture
def table() -> str:
    """The name of a table that does not exist yet."""
    return f"state-{next(_names)}"
