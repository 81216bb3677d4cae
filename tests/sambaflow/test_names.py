"""Names under ``sambaflow`` are ours, as the same objects."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

import bossa.samba
from bossa.errors import SambaError
from bossa.sambaflow.names import bind


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("sambaflow.samba", "bossa.samba"),
        ("sambaflow.samba.nn.parameter", "bossa.samba.nn.parameter"),
        ("sambaflow.samba.directives", "bossa.samba.directives"),
        ("sambaflow.samba.optim", "bossa.samba.optim"),
        ("sambaflow.samba.utils", "bossa.samba.utils"),
        ("sambaflow.samba.utils.argparser", "bossa.samba.utils.argparser"),
        ("sambaflow.samba.utils.pef_utils", "bossa.samba.utils.pef_utils"),
        ("sambaflow.samba.utils.dataset.mnist", "bossa.samba.utils.dataset.mnist"),
        ("sambaflow.logging", "bossa.samba.logging"),
        ("sambaflow.sambacollections", "bossa.samba.sambacollections"),
    ],
)
def test_a_module_is_one_object_under_both_names_and_stays_what_it_was(theirs: str, ours: str):
    bind()
    module = importlib.import_module(theirs)
    assert module is importlib.import_module(ours)
    assert module.__name__ == ours
    assert module.__spec__ is not None
    assert module.__spec__.name == ours


def test_plain_attributes_work_as_imports_do():
    bind()
    import sambaflow

    assert sambaflow.samba is bossa.samba
    assert sambaflow.samba.utils.argparser.parse_app_args is bossa.samba.utils.argparser.parse_app_args
    assert sambaflow.logging.samba_logger is importlib.import_module("bossa.samba.logging").samba_logger
    assert sambaflow.sambacollections.OrderedSet([1])
    assert isinstance(sambaflow.__version__, str)


def test_the_session_is_an_object_by_every_way_of_naming_it(eager_session: object):
    bind()
    import sambaflow.samba.session as by_import
    from sambaflow import samba
    from sambaflow.samba import SambaSession, session
    from sambaflow.samba.session import session as from_module

    assert by_import is session is from_module is samba.session is eager_session
    assert isinstance(session, SambaSession)


def test_what_is_installed_under_the_name_is_not_used():
    sys.modules["sambaflow"] = ModuleType("sambaflow")
    bind()
    import sambaflow

    assert sambaflow.samba is bossa.samba


def test_what_is_not_there_is_named_and_can_be_tried():
    bind()
    with pytest.raises(SambaError, match=r"import sambaflow\.samba\.quantum: Bossa has nothing of this name"):
        importlib.import_module("sambaflow.samba.quantum")
    with pytest.raises(ImportError):
        importlib.import_module("sambaflow.samba.session.deeper")
    with pytest.raises(ImportError):
        importlib.import_module("sambaflow.transformers5")
    with pytest.raises(AttributeError, match=r"docs/samba\.md"):
        importlib.import_module("sambaflow").quantum  # noqa: B018
