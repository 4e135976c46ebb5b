"""The service's HTTP API as the page uses it: the same requests, keys and answers as any other client's.

The requests stay inside the process (no port, no host name to get wrong), but pass every layer of the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel
from starlette.types import ASGIApp

from app.answers import JobAnswer
from app.routes.catalogue import CatalogueAnswer
from app.routes.models import ModelAnswer, ModelList
from app.routes.variants import VariantList
from contract.card import Card
from contract.kinds import JobKind

POLL_SECONDS = 0.3
_LABELS = {
    "guidance_scale": "Guidance",
    "limit": "Prompts of each set",
    "num_images": "Pictures",
    "num_inference_steps": "Steps",
    "prompt_sets": "Prompt sets",
    "prompts": "Prompt set",
    "recipe": "Preset",
}
"""Of the fields whose label is not their name."""


class ServiceError(Exception):
    """The service refused or failed. The message is a sentence for the reader of the page."""


class KeyNeeded(ServiceError):
    """The service asks for an API key, and the page has none or a wrong one."""


class Offer(BaseModel):
    """What can be chosen on the page."""

    models: list[ModelAnswer]
    cards: list[Card]
    catalogue: CatalogueAnswer

    def model(self, name: str | None) -> ModelAnswer | None:
        """The model of that name, if there is one."""
        return next((model for model in self.models if model.id == name), None)


@dataclass(frozen=True)
class Api:
    """Where the API is."""

    app: ASGIApp

    @asynccontextmanager
    async def connect(self, key: str) -> AsyncIterator[Connection]:
        """A connection that sends the reader's API key, if any."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield Connection(client)


class Connection:
    """Requests to the API. Every method raises ServiceError with the API's own explanation."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @property
    def open(self) -> bool:
        """Whether no key is sent: then the reader's browser can follow links into the API by itself."""
        return "Authorization" not in self._client.headers

    async def offer(self) -> Offer:
        """Models, variants and presets."""
        models = ModelList.model_validate_json(await self._get("/v1/models"))
        variants = VariantList.model_validate_json(await self._get("/v1/variants"))
        catalogue = CatalogueAnswer.model_validate_json(await self._get("/v1/catalogue"))
        named = [model.model_copy(update={"loaded": []}) for model in models.data]  # it changes with every picture
        return Offer(models=named, cards=variants.data, catalogue=catalogue)

    async def submit(self, kind: JobKind, body: Mapping[str, Any]) -> JobAnswer:
        """Hand in a job."""
        return JobAnswer.model_validate_json(_checked(await self._client.post(f"/v1/{kind}s", json=body)))

    async def follow(self, job: JobAnswer) -> AsyncIterator[JobAnswer]:
        """The job now, and again whenever it has changed, until it has ended."""
        yield job
        while not job.status.terminal:
            await asyncio.sleep(POLL_SECONDS)
            latest = JobAnswer.model_validate_json(await self._get(job.links.self))
            if latest != job:
                job = latest
                yield job

    async def cancel(self, link: str) -> None:
        """Ask for a job to be canceled."""
        _checked(await self._client.post(link))

    async def download(self, url: str, folder: Path) -> str:
        """The path of a copy of a stored picture or report, byte for byte."""
        target = folder / url.rpartition("/")[2]
        target.write_bytes(await self._get(url))
        return str(target)

    async def _get(self, path: str) -> bytes:
        return _checked(await self._client.get(path))


def _checked(answer: httpx.Response) -> bytes:
    if answer.is_success:
        return answer.content
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise KeyNeeded("This service asks for a valid API key.")
    try:
        detail = _detail(answer.json())
    except (ValueError, KeyError, TypeError):
        detail = f"the service answered {answer.status_code} {answer.reason_phrase}"
    raise ServiceError(_sentence(str(detail)))


def _detail(problem: dict[str, Any]) -> str:
    """What is wrong, with the forms' own labels for the fields."""
    return "; ".join(f"{_label(fault['loc'])}: {fault['msg']}" for fault in problem["errors"]) or problem["detail"]


def _label(place: list[str]) -> str:
    field = next(iter(place[1:]), place[0])
    return _LABELS.get(field, field.replace("_", " ").capitalize())


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
