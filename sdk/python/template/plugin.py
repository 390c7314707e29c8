"""Lets the machines of racks that are being worked on wait, whatever they were to boot.

A machine's rack is the key `rack` of its metadata: `kiwispray host set 3 --meta rack=r7`.
"""

from kiwispray import PASS, About, config, hold, note

about = About(
    name="@name@",
    version="0.1.0",
    summary="Lets machines of racks under maintenance wait",
    config_schema={
        "type": "object",
        "properties": {"racks": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
    },
)


def boot(request):
    """Hook `boot`: what a host boots now."""
    rack = request.host.metadata.get("rack")
    if rack is None:
        note("its rack is not known")
        return PASS
    if rack in config().get("racks", []):
        return hold(f"Rack {rack} is being worked on.", because="its rack is under maintenance")
    return PASS
