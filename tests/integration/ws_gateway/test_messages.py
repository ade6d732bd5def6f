"""Messages between real connections: acknowledged, delivered, in order, never twice."""

from pathlib import Path

from tests.support.gateway import running_gateway


async def test_message_is_acknowledged_and_delivered(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        ann, bob = gateway.profile.sign_up("ann"), gateway.profile.sign_up("bob")
        async with gateway.talking(ann) as a, gateway.talking(bob) as b:
            ack = await a.say(bob.user_id, "hello", "1")
            message = await b.expect("message", text="hello")
        assert (ack["seq"], ack["duplicate"]) == (1, False)
        assert message["from"] == ann.user_id
        assert message["conversation"] == ack["conversation"]
        assert message["sent_at"] == ack["sent_at"]
        assert "id" not in message
