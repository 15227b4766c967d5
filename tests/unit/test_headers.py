"""The one safetensors parser, on headers that are right and on every way to be wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Code, SpearError
from app.hub.headers import DTYPE_BITS, header_size, merge_shards, parse_header, parse_index

F = "model.safetensors"


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def parse(entries, *, data=None, raw=None, max_tensors=100):
    raw = json.dumps(entries).encode() if raw is None else raw
    if data is None:
        data = max((e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__"), default=0)
    return parse_header(raw, file=F, file_size=8 + len(raw) + data, max_tensors=max_tensors)


def refusal(code, *args, **kwargs):
    with pytest.raises(SpearError) as caught:
        parse(*args, **kwargs)
    assert caught.value.code is code
    assert caught.value.names["file"] == F
    return caught.value


def test_tensors_come_in_file_order_with_absolute_offsets():
    raw = json.dumps({"b": entry(begin=8, end=16), "__metadata__": {"format": "pt"}, "a": entry()}).encode()
    tensors = parse(None, raw=raw, data=16)
    assert list(tensors) == ["a", "b"]
    assert (tensors["a"].offset, tensors["b"].offset) == (8 + len(raw), 16 + len(raw))
    assert tensors["b"].nbytes == 8
    assert tensors["b"].shape == (2,)
    assert tensors["b"].elements == 2


def test_trailing_blanks_scalars_and_empty_tensors_are_fine():
    raw = json.dumps({"s": entry(shape=(), end=4), "e": entry(shape=(0, 3), begin=4, end=4)}).encode() + b"   "
    assert parse(None, raw=raw, data=4)["e"].nbytes == 0


def test_a_header_of_real_safetensors_parses_to_the_same():
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    blob = save({"x": torch.ones(3, 2, dtype=torch.bfloat16), "y": torch.zeros(5, dtype=torch.int8)})
    size = header_size(blob[:8], file=F, limit=10_000)
    tensors = parse_header(blob[8 : 8 + size], file=F, file_size=len(blob), max_tensors=2)
    x = tensors["x"]
    values = torch.frombuffer(bytearray(blob[x.offset : x.offset + x.nbytes]), dtype=torch.bfloat16)
    assert (x.dtype, x.shape, values.tolist()) == ("BF16", (3, 2), [1.0] * 6)
    assert tensors["y"].dtype == "I8"


@pytest.mark.parametrize(
    ("entries", "data", "words"),
    [
        ({"a": entry()}, 4, "beyond"),
        ({"a": entry(end=4)}, 4, "has 4 bytes"),
        ({"a": entry(shape=(2**48,) * 32)}, 8, "needs"),
        ({"a": entry(shape=(2**63, 2**63))}, 8, "shape"),
        ({"a": entry(shape=(-2,))}, 8, "shape"),
        ({"a": entry(shape=(2.0,))}, 8, "shape"),
        ({"a": entry(shape=(True,), end=4)}, 4, "shape"),
        ({"a": entry(shape=(1,) * 33, end=4)}, 4, "shape"),
        ({"a": entry(dtype="F33")}, 8, "dtype"),
        ({"a": entry(dtype="F4", shape=(3,), end=2)}, 2, "needs 2"),
        ({"a": entry(begin=8, end=0)}, 8, "data_offsets"),
        ({"a": {**entry(), "data_offsets": [0]}}, 8, "data_offsets"),
        ({"a": {**entry(), "more": 1}}, 8, "exactly"),
        ({"a": {"dtype": "F32"}}, 8, "exactly"),
        ({"a": 3}, 8, "exactly"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_refused_by_name(entries, data, words):
    error = refusal(Code.HEADER_INVALID, entries, data=data)
    assert words in error.message
    assert error.names["tensor"] in entries


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b" {}", "begin"),
        (b"[]", "begin"),
        (b"{", "JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"\xff": 1}', "UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"a":{"b":{"c":{"d":{}}}}}', "nested"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":{"dtype":"F32","dtype":"F16"}}', "twice"),
        (b'{"__metadata__":{"n":1}}', "__metadata__"),
        (b'{"__metadata__":[]}', "__metadata__"),
        (b'{"":' + json.dumps(entry()).encode() + b"}", "name"),
        (b'{"\\ud800":' + json.dumps(entry()).encode() + b"}", "name"),
        (b'{"a\\u0000":' + json.dumps(entry()).encode() + b"}", "name"),
        (b'{"' + b"x" * 513 + b'":' + json.dumps(entry()).encode() + b"}", "name"),
        (b'{"a":' + b"9" * 5000 + b"}", "JSON"),
    ],
)
def test_a_wrong_text_is_refused(raw, words):
    assert words in refusal(Code.HEADER_INVALID, None, raw=raw, data=8).message


@pytest.mark.parametrize(
    ("entries", "data", "code", "tensor"),
    [
        ({"a": entry(), "b": entry(begin=4, end=12)}, 12, Code.TENSOR_OVERLAP, "b"),
        ({"a": entry(), "b": entry()}, 8, Code.TENSOR_OVERLAP, "b"),
        ({"a": entry(), "b": entry(begin=12, end=20)}, 20, Code.TENSOR_HOLE, "b"),
        ({"a": entry(begin=8, end=16)}, 16, Code.TENSOR_HOLE, "a"),
        ({"a": entry()}, 11, Code.TENSOR_HOLE, "a"),
    ],
)
def test_tensors_lie_without_overlap_or_hole(entries, data, code, tensor):
    assert refusal(code, entries, data=data).names["tensor"] == tensor


def test_bytes_of_no_tensor_at_all_are_a_hole():
    assert "3 bytes" in refusal(Code.TENSOR_HOLE, {}, data=3).message


def test_too_many_tensors_exceed_a_limit():
    two = {"a": entry(), "b": entry(begin=8, end=16)}
    assert len(parse(two, max_tensors=2)) == 2
    refusal(Code.LIMIT_EXCEEDED, two, max_tensors=1)


@pytest.mark.parametrize(
    ("first8", "code"),
    [
        (b"\x02\0\0\0\0\0\0", Code.HEADER_INVALID),
        (b"\x01\0\0\0\0\0\0\0", Code.HEADER_INVALID),
        (b"\xff" * 8, Code.HEADER_TOO_LARGE),
        ((101).to_bytes(8, "little"), Code.HEADER_TOO_LARGE),
    ],
)
def test_the_announced_length_is_checked(first8, code):
    with pytest.raises(SpearError) as caught:
        header_size(first8, file=F, limit=100)
    assert caught.value.code is code


def test_the_announced_length_is_little_endian():
    assert header_size((100).to_bytes(8, "little"), file=F, limit=100) == 100


@given(st.binary(max_size=200))
def test_no_bytes_at_all_can_raise_anything_else(raw):
    try:
        parse_header(b"{" + raw, file=F, file_size=1000, max_tensors=5)
    except SpearError as error:
        assert error.code in {Code.HEADER_INVALID, Code.TENSOR_HOLE, Code.LIMIT_EXCEEDED}  # noqa: PT017 - most texts are refused, not all


@given(st.lists(st.tuples(st.sampled_from(sorted(DTYPE_BITS)), st.integers(0, 9)), max_size=8))
def test_every_dtype_round_trips(parts):
    entries, reached = {}, 0
    for number, (dtype, groups) in enumerate(parts):
        nbytes = groups * DTYPE_BITS[dtype]  # eight elements take as many bytes as one has bits
        entries[f"t{number}"] = entry(dtype, (8, groups), reached, reached + nbytes)
        reached += nbytes
    tensors = parse(entries, data=reached)
    assert sum(tensor.nbytes for tensor in tensors.values()) == reached


# --- index and shards -----------------------------------------------------------------------------------------------

I = "model.safetensors.index.json"  # noqa: E741
FILES = {"s1.safetensors", "s2.safetensors", I}


def index(weight_map):
    return parse_index(json.dumps({"weight_map": weight_map}).encode(), file=I, files=FILES)


def test_an_index_gives_its_weight_map():
    assert index({"a": "s1.safetensors"}) == {"a": "s1.safetensors"}


@pytest.mark.parametrize("shard", ["s1.bin", 3, None, [], "", "s1.safetensors\n"])
def test_a_shard_must_be_a_safetensors_file(shard):
    with pytest.raises(SpearError, match="not to a") as caught:
        index({"a": shard})
    assert caught.value.code is Code.INDEX_INVALID
    assert caught.value.names["tensor"] == "a"


@pytest.mark.parametrize("shard", ["../s1.safetensors", "/s1.safetensors", "d/s1.safetensors", ".safetensors", "..",
                                   "d\\s1.safetensors", "http://a.org/s1.safetensors", "c:s1.safetensors"])  # fmt: skip
def test_a_shard_must_lie_in_the_repository(shard):
    with pytest.raises(SpearError) as caught:
        index({"a": shard})
    assert caught.value.code is Code.UNSAFE_PATH
    assert (caught.value.names["tensor"], caught.value.names["shard"]) == ("a", shard)


def test_shards_that_differ_by_case_alone_are_refused():
    raw = json.dumps({"weight_map": {"a": "s1.safetensors", "b": "S1.safetensors"}}).encode()
    with pytest.raises(SpearError, match="case") as caught:
        parse_index(raw, file=I, files=FILES | {"S1.safetensors"})
    assert caught.value.code is Code.INDEX_INVALID


def test_a_shard_must_exist():
    with pytest.raises(SpearError) as caught:
        index({"a": "s3.safetensors"})
    assert caught.value.code is Code.SHARD_MISSING
    assert caught.value.names == {"file": I, "tensor": "a", "shard": "s3.safetensors"}


@pytest.mark.parametrize("raw", [b"{}", b'{"weight_map": {}}', b'{"weight_map": []}', b"[]", b"\xff"])
def test_an_index_without_a_map_is_refused(raw):
    with pytest.raises(SpearError) as caught:
        parse_index(raw, file=I, files=FILES)
    assert caught.value.code is Code.INDEX_INVALID


def shards(**names):
    return {f"{shard}.safetensors": parse({name: entry() for name in [name]}) for shard, name in names.items()}


def test_shards_unite():
    merged = merge_shards(shards(s1="a", s2="b"), index={"a": "s1.safetensors", "b": "s2.safetensors"}, file=I)
    assert list(merged) == ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "weight_map", "words"),
    [
        ({"s1": "a"}, {"a": "s2.safetensors"}, "says s2"),
        ({"s1": "a"}, {"b": "s1.safetensors"}, "says None"),
        ({"s1": "a"}, {"a": "s1.safetensors", "b": "s1.safetensors"}, "does not"),
    ],
)
def test_shards_and_index_must_agree(parts, weight_map, words):
    with pytest.raises(SpearError, match=words) as caught:
        merge_shards(shards(**parts), index=weight_map, file=I)
    assert caught.value.code is Code.INDEX_INVALID
    assert caught.value.names["tensor"] in {"a", "b"}


def test_a_tensor_in_two_shards_names_both():
    with pytest.raises(SpearError, match="both") as caught:
        merge_shards(
            {"s1.safetensors": parse({"a": entry()}), "s2.safetensors": parse({"a": entry()})},
            index={"a": "s1.safetensors"}, file=I,
        )
    assert caught.value.code is Code.DUPLICATE_TENSOR
    assert caught.value.names["tensor"] == "a"
    assert caught.value.names["file"] == "s2.safetensors"


def test_values_are_counted_before_they_are_parsed():
    bomb = b'{"a":[' + b"[]," * 200_000 + b"[]]}"
    with pytest.raises(SpearError) as caught:
        parse_header(bomb, file=F, file_size=len(bomb) + 8, max_tensors=10, max_values=100_000)
    assert (caught.value.code, caught.value.names["limit"]) == (Code.LIMIT_EXCEEDED, "max_json_values")


def test_a_longest_name_can_be_set():
    raw = json.dumps({"abcdef": entry()}).encode()
    assert parse_header(raw, file=F, file_size=len(raw) + 16, max_tensors=1, max_name=6)
    with pytest.raises(SpearError, match="name"):
        parse_header(raw, file=F, file_size=len(raw) + 16, max_tensors=1, max_name=5)
