from node_agent.generations import GenerationCache


def test_used_entries_outlive_unused_ones() -> None:
    cache: GenerationCache[str, int] = GenerationCache(8)
    cache.put("used", 1)
    for number in range(50):
        cache.put(f"other{number}", number)
        assert cache.get("used") == 1
    assert len(cache) <= 8
    assert cache.get("other0") is None
    assert cache.forgotten > 40


def test_an_entry_unused_for_two_rotations_is_forgotten() -> None:
    cache: GenerationCache[str, int] = GenerationCache(8)
    cache.put("a", 1)
    cache.rotate()
    assert cache.get("a") == 1  # used: young again
    cache.rotate()
    cache.rotate()
    assert cache.get("a") is None


def test_a_value_is_replaced_in_either_generation() -> None:
    cache: GenerationCache[str, int] = GenerationCache(8)
    cache.put("a", 1)
    cache.rotate()
    cache.put("a", 2)
    assert cache.get("a") == 2
    assert list(cache.values()) == [2]
    cache.remove("a")
    assert cache.get("a") is None
    assert len(cache) == 0


def test_it_tells_what_the_next_rotation_forgets() -> None:
    cache: GenerationCache[str, int] = GenerationCache(8)
    cache.put("a", 1)
    cache.put("b", 2)
    assert list(cache.aged()) == []
    cache.rotate()
    assert cache.get("b") == 2
    assert list(cache.aged()) == ["a"]


def test_keys_of_either_generation_can_be_forgotten() -> None:
    cache: GenerationCache[str, int] = GenerationCache(8)
    for key in ("a", "b"):
        cache.put(key, 1)
    cache.rotate()
    for key in ("c", "d"):
        cache.put(key, 1)
    cache.forget(lambda key: key in "bd")
    assert sorted(cache.keys()) == ["a", "c"]
