"""Lets a stand-in of the Hub take Spaces: made, filled by commits through the large-file store, given hardware."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from hub_stand_in import LARGE, Handler, HubStandIn, Repository

SPACE = re.compile(r"/(?:api/)?spaces/(?P<name>[\w.-]+/[\w.-]+?)(?P<rest>\.git/.*|/.*)")


class Spaces:
    """What was asked of it: `made` has the request that made each Space, `hardware` what it runs on."""

    def __init__(self, hub: HubStandIn) -> None:
        self.hub, self.refuse = hub, 0
        self.made: dict[str, dict[str, Any]] = {}
        self.hardware: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        hub.extra.append(self.answer)

    def answer(self, asked: Handler) -> bool:
        path, method = asked.path.split("?")[0], asked.command
        if method == "POST" and path == "/api/repos/create":
            self._create(asked, json.loads(asked.body()))
        elif method == "POST" and path == "/api/validate-yaml":
            asked.body()
            asked.json({"errors": [], "warnings": []})
        elif method == "PUT" and path.startswith("/upload/"):
            self.stored[path.removeprefix("/upload/")] = asked.body()
            asked.answer(200, b"")
        elif method == "POST" and (found := SPACE.fullmatch(path)):
            self._change(asked, found["name"], found["rest"])
        else:
            return False
        return True

    def _create(self, asked: Handler, how: dict[str, Any]) -> None:
        name = f"{how['organization']}/{how['name']}"
        if self.refuse:
            asked.answer(self.refuse, b'{"error": "no right to do so"}', **{"Content-Type": "application/json"})
            return
        exists = name in self.made
        self.made.setdefault(name, how)
        if not exists:
            self.hub.add(name, {"old.txt": b"from the template", ".gitattributes": b""})
        asked.json({"url": f"{self.hub.url}/spaces/{name}"}, 409 if exists else 200)

    def _change(self, asked: Handler, name: str, rest: str) -> None:
        body = asked.body()
        if rest.startswith("/preupload/"):
            modes = {True: "lfs", False: "regular"}
            files = [one["path"] for one in json.loads(body)["files"]]
            told = [{"path": path, "uploadMode": modes[path.endswith(LARGE)], "shouldIgnore": False} for path in files]
            asked.json({"files": told})
        elif rest.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            asked.json({"transfer": "basic", "objects": objects})
        elif rest.startswith("/commit/"):
            self._commit(self.hub.repositories[name], [json.loads(line) for line in body.splitlines()])
            asked.json({"commitUrl": f"{self.hub.url}/spaces/{name}/commit/{'a' * 40}", "commitOid": "a" * 40})
        elif rest == "/hardware":
            self.hardware[name] = json.loads(body)["flavor"]
            asked.json({"stage": "BUILDING", "hardware": {"current": None, "requested": self.hardware[name]}})
        else:
            asked.answer(404, b"")

    def _commit(self, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                repository.files.pop(value["path"])
        repository.sha256.clear()
