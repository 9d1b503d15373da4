"""What repositories make of values: standard types as themselves, models through their schema."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Any
from uuid import UUID

import orjson
import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    field_serializer,
    field_validator,
    model_validator,
)

from agent_service.core.errors import RecordValueError, UndecodableError
from agent_service.tenants.serde import dumps, loads


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    on: bool
    flags: list[bool] = []


class Model(BaseModel):
    active: bool
    maybe: bool | None = None
    wide: bool | int = True
    anything: Any = None
    inner: Inner | None = None
    many: dict[str, list[Inner]] = {}
    pair: tuple[bool, int] = (True, 1)
    by_flag: dict[bool, bool] = {}
    annotated: list[Annotated[bool, Field(description="x")]] = []


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    renamed: bool = Field(alias="otherName")
    colour: Colour
    at: datetime
    url: AnyUrl
    path: PurePosixPath
    address: IPv4Address
    big: int


class Flags(RootModel[list[bool]]):
    pass


@pytest.fixture(autouse=True)
def house():
    """No server is needed here."""


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1, 1.0, "1", "0", "null", [], {}, 2**80, [True, {"a": (1, 2)}], {"$uuid": "x"}),
        *(Decimal("1.10"), UUID(int=7), b"\x00", datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)),
    ],
)
def test_plain_values_and_standard_types_come_back_as_themselves(value: Any):
    back = loads(dumps(value))

    assert repr(back) == repr(value)


def test_plain_values_are_plain_json():
    assert dumps({"a": [1, True, "1", None, 1.5]}) == '{"a":[1,true,"1",null,1.5]}'
    assert dumps(Colour.RED) == '"red"'


def test_bool_fields_of_a_model_are_one_and_zero_wherever_they_are_declared():
    model = Model(
        active=True,
        maybe=False,
        wide=True,
        anything=[True],
        inner=Inner(on=False, flags=[True, False]),
        many={"x": [Inner(on=True)]},
        by_flag={True: False},
        annotated=[True],
    )

    written = orjson.loads(dumps(model))

    assert (written["active"], written["maybe"], written["wide"], written["anything"]) == ("1", "0", True, [True])
    assert written["inner"] == {"on": "0", "flags": ["1", "0"]}
    assert written["many"] == {"x": [{"on": "1", "flags": []}]}
    assert written["annotated"] == ["1"]
    assert loads(dumps(model), Model) == model


def test_a_strict_model_with_aliases_and_types_that_json_lacks_comes_back():
    model = Strict(
        otherName=True,
        colour=Colour.RED,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        url=AnyUrl("https://example.com/a?b=c"),
        path=PurePosixPath("/a/b"),
        address=IPv4Address("10.0.0.1"),
        big=2**90,
    )

    assert loads(dumps(model), Strict) == model


def test_a_root_model_comes_back():
    assert dumps(Flags([True, False])) == '["1","0"]'
    assert loads(dumps(Flags([True, False])), Flags) == Flags([True, False])


def test_models_inside_of_plain_data_are_written_like_models():
    assert dumps({"a": [Inner(on=True)], "plain": True}) == '{"a":[{"on":"1","flags":[]}],"plain":true}'


def test_a_field_that_was_not_stored_yet_gets_its_default():
    assert loads('{"active":"0"}', Model) == Model(active=False)


def test_data_that_does_not_fit_a_model_names_the_place_and_shows_no_value():
    with pytest.raises(UndecodableError, match="does not make a Inner: on: bool_parsing") as caught:
        loads('{"on":"my secret"}', Inner)

    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize("raw", ["", "no json", '{"$unknown":1}'])
def test_text_that_was_not_written_here_is_refused(raw: str):
    with pytest.raises(UndecodableError):
        loads(raw)


def test_what_cannot_be_written_is_named():
    class Secret(BaseModel):
        token: SecretStr = SecretStr("x")

    with pytest.raises(RecordValueError, match=r"value\['token'\] cannot be stored: it is a SecretStr, and secrets"):
        dumps(Secret())


def test_a_model_is_restored_and_its_validators_do_not_run_again():
    class Priced(BaseModel):
        model_config = ConfigDict(validate_default=True)
        price: int
        paid: bool = False
        log: list[str] = []

        @field_validator("price", mode="before")
        @classmethod
        def in_cents(cls, value: Any) -> int:
            return round(Decimal(value) * 100)

        @field_serializer("price")
        def written(self, value: int) -> str:
            return f"{value} cents"

        @model_validator(mode="after")
        def remember(self) -> "Priced":
            self.__dict__["log"] = [*self.log, "validated"]
            return self

    class Order(BaseModel):
        items: list[Priced]
        urls: dict[str, AnyUrl] = {}

    order = Order(items=[Priced(price="1.50", paid=True)], urls={"a": "https://a.org"})

    once = loads(dumps(order), Order)
    twice = loads(dumps(once), Order)

    assert once == twice == order
    assert order.items[0].price == 150
