import pytest

from aggregator.profiles.errors import QueryError
from aggregator.profiles.selector import parse_selector

NGINX = {"service": "nginx", "version": "1.27", "k8s.io/pod": "a b"}


@pytest.mark.parametrize(
    ("query", "labels", "expected"),
    [
        ("", NGINX, True),
        ("{}", NGINX, True),
        (" { } ", {}, True),
        ('{service="nginx"}', NGINX, True),
        ('{service="nginx",}', NGINX, True),
        ('{service="ngin"}', NGINX, False),
        ('{service!="nginx"}', NGINX, False),
        ('{service!="apache"}', NGINX, True),
        ('{service=~"ngin"}', NGINX, False),  # the whole value has to match
        ('{service=~"ngin."}', NGINX, True),
        ('{service=~"a|n.*"}', NGINX, True),
        ('{service!~"n.*"}', NGINX, False),
        ('{service!~"a.*"}', NGINX, True),
        ('{service="nginx", version="1.27"}', NGINX, True),
        ('{service="nginx", version="1.28"}', NGINX, False),
        ("{service='nginx'}", NGINX, True),
        ("{version=~`1\\.\\d+`}", NGINX, True),
        ('{version=~"1\\\\.2."}', NGINX, True),
        ('{k8s.io/pod="a b"}', NGINX, True),
        ('{"k8s.io/pod"="a b"}', NGINX, True),
        ('{absent=""}', NGINX, True),
        ('{absent!=""}', NGINX, False),
        ('{absent=~".*"}', NGINX, True),
        ('{absent=~".+"}', NGINX, False),
        ('{service="a\\"b"}', {"service": 'a"b'}, True),
        ('{service="\\u00e9\\x41\\n"}', {"service": "éA\n"}, True),
        ('{service=~"é."}', {"service": "éa"}, True),
        ('{service="nginx", service=~"n.*"}', NGINX, True),
        ('{service=~"n.*", service!="nginx"}', NGINX, False),
        ('{service=~"a.b"}', {"service": "a\nb"}, False),
    ],
)
def test_labels(query, labels, expected):
    assert parse_selector(query).matches_labels(labels) is expected


def test_host_conditions_choose_nodes_and_not_series():
    selector = parse_selector('{host=~"web-.*", host!="web-2", service="nginx"}')
    assert [host for host in ("web-1", "web-2", "db-1") if selector.matches_host(host)] == ["web-1"]
    assert selector.matches_labels(NGINX)
    assert not selector.matches_labels({"service": "postgres"})


def test_a_regular_expression_cannot_hang():
    selector = parse_selector('{service=~"(a+)+(a*)*(a|aa)+b"}')
    assert not selector.matches_labels({"service": "a" * 500})


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("nginx", 'expected "{" at position 1'),
        ("{", "expected a label name at position 2, found the end"),
        ("{service", "expected =, !=, =~ or !~ at position 9, found the end"),
        ('{service="nginx"', 'expected "," or "}" at position 17'),
        ("{service=nginx}", "expected a quoted value .* at position 10, found 'nginx}'"),
        ('{service="nginx}', "closing quote at position 10"),
        ('{service=="nginx"}', "at position 10"),
        ('{service>"nginx"}', "expected =, .* at position 9"),
        ('{service="a" version="b"}', "at position 14"),
        ('{service="a",,}', "at position 14"),
        ('{service="a"} x', "expected nothing more at position 15"),
        ('{service="\\q"}', "known escape .* at position 11"),
        ('{service=~"("}', "expression at position 11 is not valid RE2: missing"),
        ('{service=~"a\\\\1"}', "expression at position 11 is not valid RE2"),
        ('{service=~"(?=a)"}', "is not valid RE2"),
        ('{service=~"a{1000}{1000}"}', "is not valid RE2"),
        ('{service=~"' + "a" * 4097 + '"}', "4097 characters; at most 4096"),
        ('{service="' + "a" * 8192 + '"}', "at most 8192"),
        ("{" + ",".join(f'l{n}="x"' for n in range(40)) + "}", "40 conditions"),
        ('{1service="a"}', "expected a label name .* at position 2"),
        ('{service=~"\\ud800"}', "not valid RE2"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_position(query, words):
    with pytest.raises(QueryError, match=words) as caught:
        parse_selector(query)
    assert caught.value.status == 400


def test_sixty_hosts_by_name_are_a_selector():
    hosts = [f"{'web-frontend-of-the-shop-' * 2}{number:02d}.eu" for number in range(60)]
    names = "|".join(hosts).replace(".", r"\\.")
    selector = parse_selector(f'{{host=~"{names}"}}')
    assert [host for host in (*hosts, "other") if selector.matches_host(host)] == hosts


def test_groups_in_a_regular_expression_cost_nothing():
    """What captures them would take minutes for these values."""
    selector = parse_selector('{service=~"' + "(" * 2000 + "a" + ")" * 2000 + '"}')
    values = ["a", *(f"service-{number}" * 20 for number in range(5000))]
    assert [v for v in values if selector.matches_labels({"service": v})] == ["a"]
