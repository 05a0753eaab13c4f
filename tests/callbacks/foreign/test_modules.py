"""The modules of other projects train as they are: the basis of what is tested with them."""

from __future__ import annotations

import pytest
import torch
from foreign_modules import MODULES, make_loader, make_trainer


@pytest.mark.parametrize("form", ["plain", "sequential", "stateful", "iterable"])
@pytest.mark.parametrize("kind", MODULES)
def test_trains(kind: str, form: str) -> None:
    torch.manual_seed(0)
    module = MODULES[kind]()
    before = torch.cat([p.detach().clone().flatten() for p in module.parameters()])
    trainer = make_trainer()
    trainer.fit(module, make_loader(form, kind))
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert trainer.global_step == (20 if kind == "adversarial" else 10)
    assert after.isfinite().all()
    assert (after != before).float().mean() > 0.9
