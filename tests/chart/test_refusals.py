"""Wrong values are refused with a sentence that says what is wrong."""

import json
import unittest

import yaml

import rig

# Those of them that the schema must see by itself.
BY_SCHEMA_MIN = 20


class Refusals(unittest.TestCase):
    def test_each_wrong_value_is_refused_with_a_sentence(self):
        cases = yaml.safe_load((rig.HERE / "wrong.yaml").read_text())
        by_schema = 0
        for case in cases:
            with self.subTest(case["why"]):
                done = rig.helm(
                    "template", "live", rig.CHART, "--values", rig.MINIMAL, "--values", "-",
                    stdin=json.dumps(case["values"]),
                )
                self.assertNotEqual(done.returncode, 0, "it was rendered")
                self.assertIn(case["says"], done.stderr)
                by_schema += "values don't meet the specifications of the schema" in done.stderr
        self.assertGreaterEqual(by_schema, BY_SCHEMA_MIN)

    def test_no_values_at_all_are_refused(self):
        done = rig.helm("template", "live", rig.CHART)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("config.kafka.bootstrap_servers is empty", done.stderr)


if __name__ == "__main__":
    unittest.main()
