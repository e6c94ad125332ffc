"""A freight forwarder's morning: from a CSV of shipments to inspected, priced consignments and a report.

`plan.yaml` says what happens, `tasks` does it, `__main__` runs and shows it. The rest is the business itself and knows
nothing of esexec: `model`, `geography`, `manifest`, `database`, `inspection`, `carrier`, `charts`, `report`.
"""
