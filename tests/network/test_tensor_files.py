import logging

import pytest

from clipseg.network.tensor_files import quiet_hub


def test_retries_are_not_told_and_errors_are(caplog: pytest.LogCaptureFixture):
    client = logging.getLogger("huggingface_hub")
    level = client.level
    with quiet_hub():
        client.getChild("utils._http").warning("Retrying in 8s [Retry 5/5].")
        client.getChild("utils._http").error("gone")
        assert client.getEffectiveLevel() == logging.ERROR
    assert "Retrying" not in caplog.text
    assert client.level == level
