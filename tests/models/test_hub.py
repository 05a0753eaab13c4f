"""The Hugging Face hub, played by a server on this machine: what is pushed comes back."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    TinyBackbone,
    export_backbone,
    from_pretrained,
    load_backbone,
    push_to_hub,
)
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import VideoLevel

hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory; of its interface, what an upload and a download need."""

    files: dict[str, dict[str, bytes]]
    asked: list[str]

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        here = f"http://{self.headers['Host']}"
        if self.headers.get("Authorization") != "Bearer secret":
            self.answer(b'{"error": "Invalid credentials"}', 401)
            return
        if self.path == "/api/repos/create":
            told = json.loads(body)
            self.files.setdefault(f"{told['organization']}/{told['name']}", {})
            reply: dict[str, Any] = {"url": f"{here}/{told['organization']}/{told['name']}"}
        elif "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            reply = {"files": [{"path": path, **modes} for path in paths]}
        elif "/commit/" in self.path:
            repository = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[repository][line["value"]["path"]] = content
            reply = {"commitUrl": f"{here}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        else:
            reply = {"errors": [], "warnings": []}
        self.answer(json.dumps(reply).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].split("/")
        content = self.files.get("/".join(parts[1:3]), {}).get(parts[-1])
        if content is None:
            self.answer(b"", 404, X_Error_Code="RepoNotFound")
        else:
            self.answer(content, ETag='"abc"', X_Repo_Commit=COMMIT, Content_Type="a/b")

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("Repositories", (Hub,), {"files": {}, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}"
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
        yield handler
        running.shutdown()
        thread.join()


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in first.state_dict().items())


def test_what_is_pushed_comes_back_with_its_card(server: type[Hub], tmp_path: Path) -> None:
    module = PretrainModule(
        backbone=TinyBackbone(width=8),
        objectives={"video": partial(VideoLevel, embedding_dim=8, queue_size=16)},
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    results = tmp_path / "probe" / "result.json"
    results.parent.mkdir()
    results.write_text('{"top1": 0.5}')
    url = push_to_hub(module, "me/tiny", token="secret", results=[results])
    assert url.endswith(f"/me/tiny/commit/{COMMIT}")
    assert set(server.files["me/tiny"]) == {"model.safetensors", "README.md"}
    card = server.files["me/tiny"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: vclr_lightning\n")
    assert 'load_backbone("hf://me/tiny")' in card
    assert "| method | video |" in card
    assert "top1 | 0.5 |" in card
    assert same(from_pretrained("me/tiny"), module.query_encoder)
    asked = len(server.asked)
    backbone = from_pretrained("me/tiny", local_files_only=True, train=True)
    assert backbone.training
    assert len(server.asked) == asked  # from the cache
    assert same(load_backbone("hf://me/tiny@main"), module.query_encoder)
    torch.save({"state_dict": module.state_dict(), "global_step": 7}, tmp_path / "last.ckpt")
    push_to_hub(tmp_path / "last.ckpt", "me/other", token="secret")
    assert "| steps | 7 |" in server.files["me/other"]["README.md"].decode()
    assert same(load_backbone("hf://me/other"), module.query_encoder)


def test_a_folder_needs_no_hub(server: type[Hub], tmp_path: Path) -> None:
    net = TinyBackbone(width=8)
    export_backbone(net, tmp_path / "copy" / "model.safetensors")
    assert same(from_pretrained(tmp_path / "copy"), net)
    assert server.asked == []
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (partial(from_pretrained, "me/lost"), r"model\.safetensors of me/lost cannot be fetched"),
        (partial(from_pretrained, "a/b/c"), r"of a/b/c cannot be fetched"),
        (partial(from_pretrained, "me/x", local_files_only=True), "cannot be fetched"),
        (partial(push_to_hub, TinyBackbone(width=8), "me/a", token="no"), "me/a cannot be upload"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(server: type[Hub], call: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vclr_lightning.models.hub_file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vclr_lightning\[hub\]'"):
        load_backbone("hf://me/tiny")
