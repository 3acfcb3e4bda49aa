"""The roadmap file, as the kit reads it."""

from runner.roadmap import all_leaves, count_covered, find_topic, read_roadmap


def test_the_roadmap_has_sixteen_topics_in_four_stages() -> None:
    topics = read_roadmap()
    assert len({topic.id for topic in topics}) == 16
    assert [topic.stage for topic in topics] == sorted(topic.stage for topic in topics)
    assert {topic.stage for topic in topics} == {1, 2, 3, 4}


def test_it_has_147_different_leaves() -> None:
    assert len(all_leaves()) == len(set(all_leaves())) == 147


def test_a_topic_is_found_by_its_id() -> None:
    topic = find_topic("middleware")
    assert topic is not None
    assert "redis-caching-strategies" in topic.leaves
    assert find_topic("middlewhere") is None


def test_a_leaf_counts_once_and_only_if_it_exists() -> None:
    covers = [["middleware/kafka-topics"], ["middleware/kafka-topics", "middleware/kafka-ordering"], ["middleware/nonsense"]]
    assert count_covered(covers) == 2
