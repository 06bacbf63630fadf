import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pooler.config.places import KeyPath, key_lines


def test_where_everything_stands() -> None:
    text = """\
# [not.a.table]
top = '''
[nor = this]
'''
[pooler]  # comment
listen = [
  "a",  # ] = [
  "b", [
    1 ],
]
 "quoted key".sub = { x = 1, y = [{z = "}"}], "a.b" = 2 }
multi = \"\"\"
x = 1 \\\"\"\" \"\"\"\"\"
[databases . "*" ]
'lit.eral'=1979-05-27 07:32:00
"\\u0061\\n"   = true
last = 1"""
    tomllib.loads(text)
    assert dict(key_lines(text)) == {
        ("top",): 2,
        ("pooler",): 5,
        ("pooler", "listen"): 6,
        ("pooler", "listen", 0): 7,
        ("pooler", "listen", 1): 8,
        ("pooler", "listen", 2): 8,
        ("pooler", "listen", 2, 0): 9,
        ("pooler", "quoted key"): 11,
        ("pooler", "quoted key", "sub"): 11,
        ("pooler", "quoted key", "sub", "x"): 11,
        ("pooler", "quoted key", "sub", "y"): 11,
        ("pooler", "quoted key", "sub", "y", 0): 11,
        ("pooler", "quoted key", "sub", "y", 0, "z"): 11,
        ("pooler", "quoted key", "sub", "a.b"): 11,
        ("pooler", "multi"): 12,
        ("databases",): 14,
        ("databases", "*"): 14,
        ("databases", "*", "lit.eral"): 15,
        ("databases", "*", "a\n"): 16,
        ("databases", "*", "last"): 17,
    }


def test_lines_ended_as_on_windows() -> None:
    assert key_lines("a = 1\r\n\r\n[b]\r\nc = 2\r\n") == {
        ("a",): 1,
        ("b",): 3,
        ("b", "c"): 4,
    }


_SCRAPS = st.sampled_from(
    [*"ab=.,[]{}\"'#\n\\ 1", "\n", "a = ", '"""', "'''", "[a]\n", "b = 1\n", "[[c]]\n", "a.b = 2\n"]
)


def _paths(tree: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*path, key)
            yield from _paths(value, (*path, key))


@given(st.lists(_SCRAPS, max_size=25).map("".join))
def test_whatever_is_toml_is_found(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    assert set(_paths(tree)) <= set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
