"""What is made from other files is what those say."""

import subprocess
import sys
import unittest

import docs
import rig


class Docs(unittest.TestCase):
    def test_table_and_schema_are_up_to_date(self):
        done = subprocess.run(
            [sys.executable, rig.HERE / "docs.py", "check"],
            capture_output=True, text=True, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_each_section_of_the_configuration_has_a_row(self):
        table = docs.table()
        for section in docs.sections():
            with self.subTest(section):
                self.assertIn(f"| `config.{section}` |", table)


if __name__ == "__main__":
    unittest.main()
