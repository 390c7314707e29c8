import unittest

import plugin
from kiwispray.testing import Core, request, types


def decide(**metadata):
    return Core(config={"racks": ["r7"]}).ask(plugin, "boot", request("web", metadata=metadata))


class Racks(unittest.TestCase):
    def test_a_machine_of_a_rack_under_maintenance_waits(self):
        self.assertIn("r7", decide(rack="r7").verdict.value.text)

    def test_other_machines_boot_as_usual(self):
        self.assertEqual(decide(rack="r8").verdict, types.BootVerdict_Pass())
        self.assertEqual(decide().verdict, types.BootVerdict_Pass())


if __name__ == "__main__":
    unittest.main()
