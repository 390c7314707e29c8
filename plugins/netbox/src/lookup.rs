//! Finds the devices of many hosts with few requests, and believes a match only if it is one both ways: one device for the
//! host, and one host for the device's serial number or MAC.

use std::collections::{BTreeMap, BTreeSet};

use kiwispray_sdk::ask::hosts;
use kiwispray_sdk::{Error, KnownHost};

use crate::api::NetBox;
use crate::config::{Config, Key};
use crate::device::Device;
use crate::matching::{self, Found};

/// What was found for each host, in their order.
pub(crate) fn find(config: &Config, machines: &[KnownHost]) -> Result<Vec<Found>, Error> {
    let netbox = NetBox::new(config);
    let mut found = vec![Found::No; machines.len()];
    for key in &config.match_by {
        let mut open: Vec<(&KnownHost, &mut Found)> =
            machines.iter().zip(&mut found).filter(|(_, found)| !matches!(found, Found::One(_))).collect();
        match key {
            Key::Serial => by_serial(&netbox, &mut open)?,
            Key::Mac => by_mac(&netbox, &mut open)?,
        }
    }
    let mut claims: BTreeMap<u64, usize> = BTreeMap::new();
    for found in &found {
        if let Found::One(device) = found {
            *claims.entry(device.id).or_default() += 1;
        }
    }
    for found in &mut found {
        if let Found::One(device) = found
            && claims.get(&device.id).is_some_and(|claims| *claims > 1)
        {
            *found = Found::Doubt(format!("several hosts are device {}", device.id));
        }
    }
    Ok(found)
}

fn by_serial(netbox: &NetBox<'_>, open: &mut [(&KnownHost, &mut Found)]) -> Result<(), Error> {
    let serials: BTreeSet<&str> = open.iter().filter_map(|(host, _)| matching::serial(host)).collect();
    if serials.is_empty() {
        return Ok(());
    }
    let devices = netbox.devices_by_serial(&serials.into_iter().collect::<Vec<_>>())?;
    for (host, found) in open {
        let Some(serial) = matching::serial(host) else { continue };
        improve(found, matching::by_serial(serial, &devices));
        if matches!(found, Found::One(_)) && !is_alone("serial", serial)? {
            **found = Found::Doubt(format!("several hosts have the serial number {}", serial.escape_default()));
        }
    }
    Ok(())
}

fn by_mac(netbox: &NetBox<'_>, open: &mut [(&KnownHost, &mut Found)]) -> Result<(), Error> {
    let macs: BTreeSet<&str> = open.iter().flat_map(|(host, _)| matching::macs(host)).collect();
    if macs.is_empty() {
        return Ok(());
    }
    let owners = netbox.owners(&macs.into_iter().collect::<Vec<_>>())?;
    let ids: BTreeSet<u64> = owners.values().flatten().copied().collect();
    if ids.is_empty() {
        return Ok(());
    }
    let devices = netbox.devices_by_id(&ids)?;
    for (host, found) in open {
        match matching::owner(host, &owners) {
            Ok(None) => continue,
            Ok(Some(id)) => improve(found, matching::by_mac(host, id, &devices)),
            Err(why) => improve(found, Found::Doubt(why)),
        }
        if let Found::One(device) = &**found
            && let Some(why) = claimed_by_another(host, device, &owners)?
        {
            **found = Found::Doubt(why);
        }
    }
    Ok(())
}

/// Why the device that has a host's MAC may be another host's.
fn claimed_by_another(
    host: &KnownHost,
    device: &Device,
    owners: &BTreeMap<String, BTreeSet<u64>>,
) -> Result<Option<String>, Error> {
    // Docking stations and some BMCs show one MAC at many machines.
    for mac in matching::macs(host).filter(|mac| owners.contains_key(*mac)) {
        if !is_alone("mac", mac)? {
            return Ok(Some(format!("several hosts have the MAC {mac}")));
        }
    }
    if matching::says_something(&device.serial)
        && let Some(other) = hosts::find("serial", &device.serial)?.iter().find(|other| other.id != host.id)
    {
        return Ok(Some(format!("device {} has its MAC and the serial number of host {}", device.id, other.id)));
    }
    Ok(None)
}

/// A later key may settle a doubt, but does not take one away by finding nothing.
fn improve(found: &mut Found, next: Found) {
    if next != Found::No {
        *found = next;
    }
}

fn is_alone(key: &str, value: &str) -> Result<bool, Error> {
    Ok(hosts::find(key, value)?.len() == 1)
}
