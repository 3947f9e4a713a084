//! Tunnel devices: one for each encapsulation and UDP port that packets leave or enter by.

use std::collections::BTreeSet;
use std::time::Instant;

use tracing::info;
use weft_overlay::BFD_PORTS;

use super::{ALIAS, Actor};
use crate::Error;
use crate::condition::{ConditionKind, Severity};
use crate::model::{Carrier, mac};
use crate::netlink::links::{put_link, put_link_alias, put_tunnel_device};
use crate::netlink::objects::NEW;
use crate::netlink::socket::Batch;

/// MTU of the underlay until something is known of it.
const USUAL_MTU: u32 = 1500;

/// UDP ports that are not an encapsulation's own, and a device is made for: who announces more makes none.
const MOST_PORTS: usize = 8;
/// Routers that a condition names.
const NAMED: usize = 4;

impl Actor {
    /// Makes the devices that are not there, and sets the host up for them.
    pub(super) fn ensure_devices(&mut self) -> Result<(), Error> {
        let Some(endpoint) = self.config.endpoint else {
            return Ok(());
        };
        // What is sent to this router comes in here; the others are made when somebody accepts nothing else.
        let own = self.config.carrier(endpoint);
        let used: BTreeSet<Carrier> = self.peers.keys().map(|(carrier, ..)| *carrier).collect();
        self.drop_devices(own, &used);
        self.make_device(own)?;
        let mut came = false;
        for carrier in used {
            match self.make_device(carrier) {
                Ok(()) => {
                    came |= self.missing_devices.remove(&carrier).is_some();
                    let name = carrier.name();
                    self.conditions
                        .clear(Instant::now(), ConditionKind::Device, &name);
                }
                Err(error) => {
                    let error = error.to_string();
                    self.note_missing(carrier, &error);
                    self.missing_devices.insert(carrier, error);
                }
            }
        }
        self.keep_settings(None);
        self.classify();
        self.keep_devices();
        // A device that was made again has another number: what leads through it has to be made again.
        let moved = self.tunnel_links.iter().any(|(carrier, link)| {
            let device = self.devices.get(carrier);
            device.is_some_and(|device| device.index != *link)
        });
        if moved || came {
            let groups: Vec<_> = self.groups.keys().copied().collect();
            for group in groups {
                self.remake(group);
            }
        }
        Ok(())
    }

    /// The number of a device, made where there is none; why there is none otherwise.
    pub(super) fn device_index(&mut self, carrier: Carrier) -> Result<u32, String> {
        if let Some(device) = self.devices.get(&carrier) {
            self.tunnel_links.insert(carrier, device.index);
            return Ok(device.index);
        }
        if let Some(error) = self.missing_devices.get(&carrier) {
            return Err(error.clone());
        }
        if let Err(error) = self.make_device(carrier) {
            let error = error.to_string();
            self.note_missing(carrier, &error);
            let error = format!("no {} device: {error}", carrier.encapsulation());
            self.missing_devices.insert(carrier, error.clone());
            return Err(error);
        }
        let device = self.devices.get(&carrier);
        let index = device.map(|device| device.index);
        self.tunnel_links
            .extend(index.map(|index| (carrier, index)));
        index.ok_or_else(|| "the device is gone again".into())
    }

    /// Says which routers are not reached for want of a device, and why there is none.
    fn note_missing(&mut self, carrier: Carrier, error: &str) {
        let encapsulation = carrier.encapsulation();
        let all = self.peers.keys().filter(|(one, ..)| *one == carrier);
        let mut routers: Vec<String> = all.map(|(_, address, _)| address.to_string()).collect();
        let more = routers.len().saturating_sub(NAMED);
        routers.truncate(NAMED);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (at, remedy) = match carrier.port() {
            Some(port) => (
                format!(" to UDP port {port}"),
                format!(
                    "the kernel sends to a port only what it has a device at that port for: who has it, `ip -d link show type vxlan` and `ss -lunp sport = {port}` say; or give those routers the `overlay.port` of this one"
                ),
            ),
            None => (
                String::new(),
                "`weft doctor` says what the kernel can do".to_owned(),
            ),
        };
        let detail = format!(
            "no {encapsulation} device{at}: {error}; routers that accept nothing else are not reached: {}{more}",
            routers.join(", ")
        );
        self.conditions.set(
            Instant::now(),
            (ConditionKind::Device, &carrier.name()),
            Severity::Degraded,
            detail,
            Some(remedy),
        );
    }

    /// Removes devices at ports that nobody is sent to any more: what comes to this router comes by its own.
    fn drop_devices(&mut self, own: Carrier, used: &BTreeSet<Carrier>) {
        if !self.settled {
            return;
        }
        self.missing_devices.retain(|carrier, _| {
            let stays = used.contains(carrier);
            if !stays {
                self.conditions
                    .clear(Instant::now(), ConditionKind::Device, &carrier.name());
            }
            stays
        });
        let left = self.devices.iter().filter(|(carrier, device)| {
            carrier.port().is_some()
                && **carrier != own
                && !used.contains(carrier)
                && !self.next_hops.lead_through(device.index)
        });
        let left: Vec<(Carrier, u32)> = left.map(|(one, device)| (*one, device.index)).collect();
        if left.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for (carrier, index) in &left {
            info!(device = %carrier.name(), "no packets leave by this tunnel device any more: removed");
            batch.push(libc::RTM_DELLINK, 0, |out| put_link(out, *index));
            self.tunnel_links.remove(carrier);
            // What was wrong with it is no more.
            let name = carrier.name();
            let of_it = |subject: &str| subject.split([' ', '.', '/']).any(|word| word == name);
            for kind in [ConditionKind::Device, ConditionKind::HostSetting] {
                let now = Instant::now();
                self.conditions.retain(now, kind, |subject| !of_it(subject));
            }
            self.vnis_held.retain(|(one, _)| one != carrier);
            self.neighbours_held.retain(|(one, _)| one != carrier);
        }
        self.send_links(batch);
        self.reread_links();
        self.policy_changed = true;
        self.steps.changed = true;
    }

    /// While a tunnel device is lacking, any other may be in its place, or have its port: when one goes it is tried again.
    pub(super) fn links_in_the_way(&self) -> Vec<u32> {
        let own = (self.config.endpoint).map(|endpoint| self.config.carrier(endpoint));
        let lacks_own = own.is_some_and(|own| !self.devices.contains_key(&own));
        match lacks_own || !self.missing_devices.is_empty() {
            true => self.links.keys().copied().collect(),
            false => Vec::new(),
        }
    }

    fn make_device(&mut self, carrier: Carrier) -> Result<(), Error> {
        let Some(endpoint) = self.config.endpoint else {
            return Err(Error::NoEndpoint);
        };
        if self.devices.contains_key(&carrier) {
            return Ok(());
        }
        let name = &*carrier.name();
        if self.links.values().any(|link| link.name == name) {
            return Err(Error::ForeignDevice(name.to_owned()));
        }
        // What others announce makes devices here, that listen.
        let own = self.config.carrier(endpoint);
        if let Some(port) = carrier.unusual_port().filter(|_| carrier != own) {
            if BFD_PORTS.contains(&port) {
                return Err(Error::BfdPort(port));
            }
            let others = self.devices.keys().filter(|one| **one != own);
            let others = others.filter(|one| one.unusual_port().is_some());
            if others.count() >= MOST_PORTS {
                return Err(Error::TooManyPorts(MOST_PORTS));
            }
        }
        let mut batch = Batch::default();
        let mtu = USUAL_MTU - carrier.overhead(endpoint);
        batch.push(libc::RTM_NEWLINK, NEW, |out| {
            let mac = mac(endpoint, Some(self.config.endpoint_id));
            put_tunnel_device(out, carrier, endpoint, mac, mtu);
        });
        batch.push(libc::RTM_NEWLINK, 0, |out| {
            put_link_alias(out, name, ALIAS);
        });
        let refused = self
            .netlink
            .send(batch)
            .map_err(Error::kernel("cannot make the tunnel device"))?;
        if let Some((_, refusal)) = refused.first() {
            return Err(match (refusal.errno, carrier.port()) {
                (libc::EADDRINUSE, Some(port)) => Error::PortTaken {
                    device: name.to_owned(),
                    port,
                },
                (libc::EPERM | libc::EACCES, _) => Error::kernel("cannot make the tunnel device")(
                    std::io::Error::from_raw_os_error(refusal.errno),
                ),
                _ => Error::Refused {
                    what: name.to_owned(),
                    kernel: refusal.to_string(),
                },
            });
        }
        self.read_links()
            .map_err(Error::kernel("cannot read the links"))?;
        info!(device = name, %endpoint, "made a tunnel device");
        self.keep_new_device(name);
        self.classify();
        self.policy_changed = true;
        Ok(())
    }
}
