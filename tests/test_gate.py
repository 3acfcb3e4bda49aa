"""The text of the gate's rules. That they hold is shown in tests/docker."""

from runner.stack.gate import Forward, rules


def test_every_forward_is_let_through_and_the_rest_is_refused() -> None:
    text = rules(["127.0.0.1"], [Forward(41001, "172.18.0.2", 6379)], [41002, 41003])
    accepted = [line.strip() for line in text.splitlines() if line.strip().endswith("accept")]
    assert accepted == ["ct state established,related accept", "oifname lo accept", "ip daddr 172.18.0.2 tcp dport 6379 accept"]
    assert "ip daddr { 127.0.0.1 } tcp dport 41001 dnat ip to 172.18.0.2:6379" in text
    assert "tcp dport { 41002, 41003 } dnat ip to 127.0.0.1" in text
    assert text.index("ip daddr 127.0.0.11 reject") < text.index("oifname lo accept"), "no name look-ups"
    assert "policy drop" in text


def test_an_app_without_ports_or_services() -> None:
    assert "dnat" not in rules(["127.0.0.1"], [], [])
