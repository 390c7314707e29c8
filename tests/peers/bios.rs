//! `bios-prep` against sushy-tools, the Redfish emulator of OpenStack.
