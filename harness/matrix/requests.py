"""The devices axis: addresses, and requests that any of several devices fits."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from harness.matrix import units
from harness.matrix.frame import quoted
from harness.matrix.origins import ShortEntry, flag, matching, not_empty, size, text, whole
from harness.model.device import VENDORS, DeviceRequest

NONE = "none"
_IDS = r"[0-9a-f]{4}:[0-9a-f]{4}"
_CRITERIA = ("vendor", "id", "model", "architecture", "memory", "mdev", "virtual", "nvlink")


def _name(value: str) -> str:
    if value == NONE:
        raise ValueError("none stands for no device; give the request another name")
    return units.name(value)


_Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{units.NAME}$"})]


def name_of_device(value: str) -> str:
    """Return ``none``, a PCI address, or a name that a request of the file may have."""
    try:
        return units.device(value)
    except ValueError as error:
        # What looks like an address is one that is not written in full; anything else may be a name.
        if re.fullmatch(units.NAME, value) and ":" not in value and value not in ("no", "cpu"):
            return value
        raise error


class DeviceEntry(ShortEntry):
    """What to pass through; `- 0000:01:00.0` is short for `- {address: 0000:01:00.0}`."""

    short: ClassVar[str] = "address"

    name: _Name | None = Field(
        default=None, description="Name of the entry; part of every cell id. An address alone needs none"
    )
    address: (
        Annotated[
            str,
            AfterValidator(units.device),
            WithJsonSchema({"type": "string", "pattern": f"^(none|{units.PCI_ADDRESS})$"}),
        ]
        | None
    ) = Field(default=None, description="PCI address of the GPU as `lspci -D` prints it, or none")
    vendor: Literal["amd", "intel", "nvidia"] | None = Field(default=None, description="Vendor of the GPU")
    id: (
        Annotated[str, matching(_IDS, "vendor and device number as lspci -nn prints them; for example 10de:2330")]
        | None
    ) = Field(default=None, description="Vendor and device number: 10de:2330")
    model: Annotated[str, text(100)] | None = Field(default=None, description="Part of the GPU's name: H100")
    architecture: Annotated[str, text(100)] | None = Field(
        default=None, description="Part of the chip's name: GA102, Navi 31"
    )
    memory: (
        Annotated[int, BeforeValidator(size), WithJsonSchema({"type": "string", "pattern": f"^{units.SIZE}$"})] | None
    ) = Field(default=None, description="Memory that the GPU's largest window shows at least: 16GiB")
    virtual: Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean"})] = Field(
        default=False, description="A virtual function (SR-IOV) of the GPU instead of all of it"
    )
    mdev: Annotated[str, text(100)] | None = Field(
        default=None, description="Kind of mediated device (vGPU) to make on it: nvidia-63"
    )
    nvlink: Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean"})] = Field(
        default=False, description="The GPUs have to reach each other over an NVLink fabric (NVSwitch)"
    )
    count: Annotated[int, whole(1, 16), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 16})] = Field(
        default=1, description="How many such devices one cell needs (default 1)"
    )
    display: Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean"})] = Field(
        default=False, description="An emulated display in the VM beside the GPU, which is its only one otherwise"
    )

    @model_validator(mode="after")
    def _whole(self) -> DeviceEntry:
        given = [key for key in _CRITERIA if getattr(self, key) not in (None, False)]
        if self.address is not None and (given or self.count != 1):
            what = given[0] if given else "count"
            raise ValueError(f"has an address and {what} as well; an address names one device, leave {what} out")
        if self.address == NONE and self.name is not None:
            raise ValueError("gives no device a name; write none alone")
        if self.address == NONE and self.display:
            raise ValueError("wants a display beside no device; write none alone")
        if self.address is None and self.name is None:
            raise ValueError("has no name; add name: gpu, which becomes part of the cell's id")
        if self.virtual and self.mdev is not None:
            raise ValueError("has virtual and mdev; keep one of the two")
        if self.vendor and self.id and int(self.id[:4], 16) != VENDORS[self.vendor]:
            raise ValueError(f"{quoted(self.id)} is not a device of {self.vendor}; leave one of the two out")
        return self

    @property
    def key(self) -> str:
        """What the axis calls it."""
        return self.name or self.address or NONE

    def request(self) -> DeviceRequest | None:
        """What the model makes of it; None for no device."""
        if self.address == NONE:
            return None
        return DeviceRequest(
            name=self.key,
            address=self.address or "",
            vendor=int(self.id[:4], 16) if self.id else VENDORS[self.vendor] if self.vendor else None,
            device=int(self.id[5:], 16) if self.id else None,
            model=self.model or "",
            architecture=self.architecture or "",
            memory=self.memory or 0,
            virtual=self.virtual,
            mdev=self.mdev or "",
            nvlink=self.nvlink,
            count=self.count,
            display=self.display,
        )


def _filled(entries: list[DeviceEntry]) -> list[DeviceEntry]:
    if not entries:
        raise ValueError("is an empty list; name at least one entry, or leave the key out where it may be")
    return entries


Devices = Annotated[
    list[DeviceEntry], AfterValidator(_filled), Field(json_schema_extra={"minItems": 1, "uniqueItems": True})
]
DeviceNames = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(name_of_device),
            WithJsonSchema({"type": "string", "pattern": f"^({units.PCI_ADDRESS}|{units.NAME})$"}),
        ]
    ],
    AfterValidator(not_empty),
    Field(json_schema_extra={"minItems": 1, "uniqueItems": True}),
]
