"""Signatures, with the example of the Standard Webhooks libraries."""

import pytest

from aggregator.alerts.errors import SecretError
from aggregator.alerts.signature import secret_key, signed_headers


def test_the_published_example() -> None:
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_secret_there_is_no_signature() -> None:
    assert signed_headers("", "msg_1", 5, b"{}") == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "5",
    }


def test_plain_text_is_a_secret_too() -> None:
    assert secret_key("correct horse") == b"correct horse"


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_a", "whsec_ä"])
def test_a_secret_that_is_not_base64_is_an_error_that_does_not_show_it(secret: str) -> None:
    with pytest.raises(SecretError) as caught:
        secret_key(secret)
    assert secret not in caught.value.message
