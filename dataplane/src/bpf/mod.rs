//! What happens to a packet at a tunnel device, as BPF programs (bpf(2)): a VNI becomes its tenant's mark in one look
//! into a hash table, whatever the number of tenants; a VNI that nobody has is dropped, and so is one from a router that
//! may not send it; packets and octets are counted by VNI and far end; code points are copied, and TCP segments made to fit. At a tenant's attachments packets get its mark
//! too, and those with another tenant's do not leave. An address of the router that is not its tenant's no packet reaches.
//!
//! The programs stay when the process ends, and so do the tables: the next process finds them by the filters at the
//! devices.

mod assembler;
mod hook;
mod program;
mod syscall;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

#[cfg(test)]
pub(crate) use self::hook::has_tcx;
use self::program::{Reason, Tables, Tunnels};
use self::syscall::Kind;
use crate::netlink::socket::Netlink;
use crate::{Drops, Traffic};

/// The programs of attachments, and of what were some, by name.
const ENTER: &str = "weft_enter";
const CLOSED: &str = "weft_closed";

/// More VNIs than the format has tenants on one router.
const VNIS: u32 = 1 << 17;
/// Pairs of VNI and far end that are counted; what comes after them is carried, not counted.
const COUNTED: u32 = 1 << 17;
/// Why packets are dropped: so many reasons are counted.
const REASONS: u32 = 6;
/// Permits to send: an entry for each router that may send every VNI, or for each VNI of one that may not.
const SENDERS: u32 = 1 << 18;
/// Tunnel devices, and some that are no more.
const DEVICES: u32 = 1024;

/// Far ends whose way is narrower than the device: segments to more of them fit the device.
const PATHS: u32 = 1 << 16;

/// Addresses of the router, each once for every tenant that has it.
const ADDRESSES: u32 = 1 << 18;

/// The programs and their tables.
#[derive(Debug)]
pub(crate) struct Classifier {
    marks: OwnedFd,
    counters: OwnedFd,
    senders: OwnedFd,
    links: OwnedFd,
    far_links: OwnedFd,
    addresses: OwnedFd,
    /// Which addresses may be in the table before.
    filter: OwnedFd,
    drops: OwnedFd,
    mtus: OwnedFd,
    /// Octets of a tenant's packet to far ends whose way is narrower than the device.
    paths: OwnedFd,
    /// By [`Place`]: what comes in, what goes out.
    programs: [[Option<OwnedFd>; 2]; PLACES],
    /// The kernel's ids of them.
    ids: [[Option<u32>; 2]; PLACES],
}

/// How tunnels carry packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// The code point outside becomes the packet's.
    pub(crate) uniform: bool,
    /// Outer packets over IPv4 are not fragmented.
    pub(crate) dont_fragment: bool,
    /// The router's endpoint has an IPv6 address.
    pub(crate) v6: bool,
}

/// Where programs are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a device whose packets have an Ethernet header, and a checksum outside over IPv6: VXLAN.
    Vxlan = 0,
    /// At one whose packets have none: VXLAN-GPE.
    VxlanGpe = 1,
    /// At one without a checksum too: GRE.
    Gre = 2,
    /// At an attachment of a tenant.
    Attachment = 3,
    /// Where tenants leave for elsewhere.
    Outside = 4,
    /// At what was an attachment.
    Closed = 5,
}

/// So many of them.
const PLACES: usize = 6;

/// Who may send packets of a VNI; 0 for every VNI.
pub(crate) type Permit = (u32, IpAddr);

/// An address of the router, and the mark of a tenant that may reach it; 0 for "somebody has it".
pub(crate) type OwnAddress = (u32, IpAddr);

/// A far end as the programs have it: 4 or 6, and its address, IPv4 as a number in host order.
fn path_key(far_end: IpAddr) -> [u8; program::PATH] {
    let mut key = [0; program::PATH];
    match far_end {
        IpAddr::V4(address) => {
            key[..4].copy_from_slice(&4u32.to_ne_bytes());
            key[4..8].copy_from_slice(&u32::from(address).to_ne_bytes());
        }
        IpAddr::V6(address) => {
            key[..4].copy_from_slice(&6u32.to_ne_bytes());
            key[4..].copy_from_slice(&address.octets());
        }
    }
    key
}

/// What a device was to an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An attachment.
    Attachment,
    /// Closed.
    Closed,
}

impl Classifier {
    /// Takes over the tables of an earlier process from the filter at one of these devices, or makes new ones, and loads
    /// the programs. Nothing changes at the devices yet.
    ///
    /// # Errors
    /// The kernel's, where it has no BPF or this process may not use it.
    pub(crate) fn new(
        netlink: &mut Netlink,
        devices: &[u32],
        carried: Carried,
    ) -> io::Result<Self> {
        let found = devices
            .iter()
            .find_map(|device| Self::tables_at(netlink, *device).ok())
            .filter(|tables| tables.contains_key("weft_marks"));
        let mut found = found.unwrap_or_default();
        let mut table =
            |name: &str, kind, key: usize, value: usize, entries| match found.remove(name) {
                Some(table) => Ok(table),
                None => syscall::make_table(name, kind, key as u32, value as u32, entries),
            };
        let marks = table("weft_marks", Kind::Hash, 4, 4, VNIS)?;
        let per_processor = Kind::HashPerProcessor;
        let (key, value) = (program::KEY, program::VALUE);
        let counters = table("weft_traffic", per_processor, key, value, COUNTED)?;
        let links = table(
            "weft_near_in",
            Kind::Array,
            4,
            program::LINK,
            program::NEAR_LINKS,
        )?;
        let far_links = table("weft_far_in", Kind::Hash, 4, program::LINK, VNIS)?;
        let senders = table("weft_senders", Kind::Hash, key, 1, SENDERS)?;
        let addresses = table("weft_addresses", Kind::Hash, program::ADDRESS, 1, ADDRESSES)?;
        let filter = table("weft_filter", Kind::Array, 4, program::FILTER, 1)?;
        let drops = table("weft_dropped", Kind::ArrayPerProcessor, 4, 8, REASONS)?;
        let mtus = table("weft_mtus", Kind::Hash, 4, 4, DEVICES)?;
        // What an earlier process knew of them is found out anew.
        let paths = syscall::make_table("weft_paths", Kind::Hash, program::PATH as u32, 4, PATHS)?;
        let tables = Tables {
            marks: marks.as_raw_fd(),
            counters: counters.as_raw_fd(),
            senders: senders.as_raw_fd(),
            links: links.as_raw_fd(),
            far_links: far_links.as_raw_fd(),
            addresses: addresses.as_raw_fd(),
            filter: filter.as_raw_fd(),
            drops: drops.as_raw_fd(),
            mtus: mtus.as_raw_fd(),
            paths: paths.as_raw_fd(),
        };
        let tunnel = |header, checksum| -> io::Result<[Option<OwnedFd>; 2]> {
            let tunnels = Tunnels {
                header,
                checksum,
                // GRE.
                chooses_source: !checksum,
                uniform: carried.uniform,
                dont_fragment: carried.dont_fragment,
                v6: carried.v6,
            };
            let ingress = syscall::load("weft_ingress", &program::ingress(&tables, tunnels))?;
            let egress = syscall::load("weft_egress", &program::egress(&tables, tunnels))?;
            Ok([Some(ingress), Some(egress)])
        };
        let programs = [
            tunnel(14, true)?,
            tunnel(0, true)?,
            tunnel(0, false)?,
            [
                Some(syscall::load(ENTER, &program::enter(&tables))?),
                Some(syscall::load("weft_leave", &program::leave(&tables))?),
            ],
            [
                None,
                Some(syscall::load("weft_outside", &program::outside(&tables))?),
            ],
            [
                Some(syscall::load(CLOSED, &program::closed())?),
                Some(syscall::load(CLOSED, &program::closed())?),
            ],
        ];
        let mut ids = [[None; 2]; PLACES];
        for (id, program) in ids.iter_mut().flatten().zip(programs.iter().flatten()) {
            *id = program.as_ref().map(syscall::id_of).transpose()?;
        }
        Ok(Self {
            ids,
            marks,
            counters,
            senders,
            links,
            far_links,
            addresses,
            filter,
            drops,
            mtus,
            paths,
            programs,
        })
    }

    /// Whether the programs are still at a device.
    pub(crate) fn is_attached(netlink: &mut Netlink, device: u32) -> bool {
        hook::is_attached(netlink, device)
    }

    /// What an earlier process made of a device, by its programs.
    pub(crate) fn found(netlink: &mut Netlink, device: u32) -> Option<Found> {
        let names = hook::names(netlink, device).unwrap_or_default();
        names.iter().find_map(|name| match name.as_str() {
            ENTER => Some(Found::Attachment),
            CLOSED => Some(Found::Closed),
            _ => None,
        })
    }

    /// Whether the programs of this process are still at a device.
    ///
    /// # Errors
    /// The kernel's, of a device that is gone too.
    pub(crate) fn holds(
        &self,
        netlink: &mut Netlink,
        device: u32,
        place: Place,
    ) -> io::Result<bool> {
        hook::holds(netlink, device, self.ids[place as usize])
    }

    /// The tables that the programs of an earlier process at a device use, by name.
    fn tables_at(netlink: &mut Netlink, device: u32) -> io::Result<HashMap<String, OwnedFd>> {
        let mut tables = HashMap::new();
        for id in hook::tables_at(netlink, device)? {
            let (table, name) = syscall::map_by_id(id)?;
            tables.insert(name, table);
        }
        Ok(tables)
    }

    /// Puts the programs at a device, in the place of those of an earlier process.
    ///
    /// # Errors
    /// Of netlink; what the kernel refuses.
    pub(crate) fn attach(
        &self,
        netlink: &mut Netlink,
        device: u32,
        place: Place,
    ) -> io::Result<()> {
        hook::attach(netlink, device, &self.programs[place as usize])
    }

    /// Takes the programs from a device; what is not there need not go.
    ///
    /// # Errors
    /// Of netlink.
    pub(crate) fn detach(netlink: &mut Netlink, device: u32) -> io::Result<()> {
        hook::detach(netlink, device)
    }

    /// Packets with another mark than a tenant's do not leave by a link of its, and those that enter get the mark `entrance`.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set_link(&self, link: u32, mark: u32, entrance: u32) -> io::Result<()> {
        let near = link < program::NEAR_LINKS;
        let links = if near { &self.links } else { &self.far_links };
        let marks = [mark, entrance].map(u32::to_ne_bytes);
        syscall::update(links, &link.to_ne_bytes(), marks.as_flattened())
    }

    /// The mark that packets get which enter by a link; `None` where nothing is said of it.
    pub(crate) fn entrance(&self, link: u32) -> Option<u32> {
        let near = link < program::NEAR_LINKS;
        let links = if near { &self.links } else { &self.far_links };
        let mut marks = [0; program::LINK];
        syscall::look_up(links, &link.to_ne_bytes(), &mut marks).ok()?;
        let [_, _, _, _, entrance @ ..] = marks;
        Some(u32::from_ne_bytes(entrance)).filter(|mark| *mark != 0)
    }

    /// TCP segments through a tunnel device are to fit this MTU, octets.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set_mtu(&self, device: u32, mtu: u32) -> io::Result<()> {
        syscall::update(&self.mtus, &device.to_ne_bytes(), &mtu.to_ne_bytes())
    }

    /// TCP segments to and from a far end are to fit this MTU, octets, where the device's is larger.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set_path(&self, far_end: IpAddr, mtu: u16) -> io::Result<()> {
        let value = u32::from(mtu).to_ne_bytes();
        syscall::update(&self.paths, &path_key(far_end), &value)
    }

    /// The way to a far end is as wide as the device.
    pub(crate) fn remove_path(&self, far_end: IpAddr) {
        // What is not there need not go.
        let _ = syscall::delete(&self.paths, &path_key(far_end));
    }

    /// Packets of a VNI get this mark.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set(&self, vni: u32, mark: u32) -> io::Result<()> {
        syscall::update(&self.marks, &vni.to_ne_bytes(), &mark.to_ne_bytes())
    }

    /// Packets of a VNI are dropped.
    pub(crate) fn remove(&self, vni: u32) {
        // What is not there need not go.
        let _ = syscall::delete(&self.marks, &vni.to_ne_bytes());
    }

    /// VNIs with their marks.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn marks(&self) -> io::Result<Vec<(u32, u32)>> {
        let mut marks = Vec::new();
        syscall::walk(&self.marks, 4, 4, |key, value| {
            if let (Ok(key), Ok(value)) = (key.try_into(), value.try_into()) {
                marks.push((u32::from_ne_bytes(key), u32::from_ne_bytes(value)));
            }
        })?;
        Ok(marks)
    }

    /// Brings the addresses of the router in line; says which there are now.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set_addresses(
        &self,
        held: &BTreeSet<OwnAddress>,
        wanted: &BTreeSet<OwnAddress>,
    ) -> io::Result<()> {
        // What is only in the table is not found, and what is only in the filter does no harm.
        for address in wanted.difference(held) {
            syscall::update(&self.addresses, &address_key(address), &[1])?;
        }
        let mut filter = vec![0u8; program::FILTER];
        for (_, address) in wanted {
            let bit = program::filter_bit(last_octets(*address));
            filter[bit / 8] |= 1 << (bit % 8);
        }
        syscall::update(&self.filter, &0u32.to_ne_bytes(), &filter)?;
        for address in held.difference(wanted) {
            // What is not there need not go.
            let _ = syscall::delete(&self.addresses, &address_key(address));
        }
        Ok(())
    }

    /// The addresses that an earlier process knew.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn addresses(&self) -> io::Result<BTreeSet<OwnAddress>> {
        let mut found = BTreeSet::new();
        syscall::walk(&self.addresses, program::ADDRESS, 1, |key, _| {
            let word =
                |at: usize| u32::from_ne_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
            let mut octets = [0; 16];
            octets.copy_from_slice(&key[8..24]);
            let address = if word(4) == 4 {
                IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
            } else {
                IpAddr::from(octets)
            };
            found.insert((word(0), address));
        })?;
        Ok(found)
    }

    /// Lets a router send.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn permit(&self, permit: Permit) -> io::Result<()> {
        syscall::update(&self.senders, &counter_key(permit), &[1])
    }

    /// Packets that nothing else permits have no permit from the next [`Classifier::forget_strangers`] on.
    pub(crate) fn revoke(&self, permit: Permit) {
        // What is not there need not go.
        let _ = syscall::delete(&self.senders, &counter_key(permit));
    }

    /// Who may send, as the kernel has it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn permits(&self) -> io::Result<BTreeSet<Permit>> {
        let mut permits = BTreeSet::new();
        syscall::walk(&self.senders, program::KEY, 1, |key, _| {
            permits.insert(counter_of(key));
        })?;
        Ok(permits)
    }

    /// Forgets the counters of those who may not send: they are permits too. Costs a walk over all of them.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn forget_strangers(&self, may_send: impl Fn(Permit) -> bool) -> io::Result<()> {
        let mut strangers = Vec::new();
        syscall::walk_keys(&self.counters, program::KEY, |key| {
            let counter = counter_of(key);
            if !counts_probes(key) && !may_send(counter) {
                strangers.push(counter);
            }
        })?;
        for stranger in strangers {
            // What is not there need not go.
            let _ = syscall::delete(&self.counters, &counter_key(stranger));
        }
        Ok(())
    }

    /// What was dropped.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn drops(&self) -> io::Result<Drops> {
        let processors = syscall::possible_processors();
        let mut counts = [0; REASONS as usize];
        syscall::walk(&self.drops, 4, 8 * processors, |key, value| {
            let at = key.try_into().map_or(0, u32::from_ne_bytes) as usize;
            if let Some(count) = counts.get_mut(at) {
                let each = value.as_chunks::<8>().0.iter();
                *count = each.map(|each| u64::from_ne_bytes(*each)).sum();
            }
        })?;
        Ok(Drops {
            unknown_vni: counts[Reason::UnknownVni as usize],
            foreign_address: counts[Reason::ForeignAddress as usize],
            foreign_attachment: counts[Reason::ForeignAttachment as usize],
            other_protocol: counts[Reason::OtherProtocol as usize],
            untranslated: counts[Reason::Untranslated as usize],
            unknown_sender: counts[Reason::UnknownSender as usize],
        })
    }

    /// Probes of other routers, by VNI: those that came in to be sent back, and those that went. None has been counted of a VNI that the
    /// table has nothing for.
    pub(crate) fn probes(&self, vnis: &[u32]) -> Vec<(u64, u64)> {
        let mut value = vec![0; program::VALUE * syscall::possible_processors()];
        let counts = vnis.iter().map(|vni| {
            let mut key = [0; program::KEY];
            key[..4].copy_from_slice(&vni.to_ne_bytes());
            key[4..8].copy_from_slice(&program::PROBES.to_ne_bytes());
            match syscall::look_up(&self.counters, &key, &mut value) {
                Ok(()) => (sum_of(&value, 0), sum_of(&value, 2)),
                Err(_) => (0, 0),
            }
        });
        counts.collect()
    }

    /// What was carried, by VNI and far end.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn traffic(&self) -> io::Result<Vec<Traffic>> {
        let processors = syscall::possible_processors();
        let mut all = Vec::new();
        syscall::walk(
            &self.counters,
            program::KEY,
            program::VALUE * processors,
            |key, value| {
                if counts_probes(key) {
                    return;
                }
                let (vni, endpoint) = counter_of(key);
                let sum = |field: usize| sum_of(value, field);
                all.push(Traffic {
                    vni,
                    endpoint,
                    received_packets: sum(0),
                    received_octets: sum(1),
                    sent_packets: sum(2),
                    sent_octets: sum(3),
                });
            },
        )?;
        all.sort_unstable_by_key(|traffic: &Traffic| (traffic.vni, traffic.endpoint));
        Ok(all)
    }
}

fn last_octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    }
}

/// Sums a number of a counter over the processors.
fn sum_of(value: &[u8], field: usize) -> u64 {
    let each = value.chunks_exact(program::VALUE);
    let numbers = each.filter_map(|each| each.get(field * 8..field * 8 + 8)?.try_into().ok());
    numbers.map(u64::from_ne_bytes).sum()
}

/// The counter is of probes, and of no far end.
fn counts_probes(key: &[u8]) -> bool {
    key[4..8] == program::PROBES.to_ne_bytes()
}

/// VNI and far end of a counter.
fn counter_of(key: &[u8]) -> Permit {
    let word = |at: usize| u32::from_ne_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let address = if word(4) == 4 {
        Ipv4Addr::from(word(8)).into()
    } else {
        let mut octets = [0; 16];
        octets.copy_from_slice(&key[8..24]);
        Ipv6Addr::from(octets).into()
    };
    (word(0), address)
}

fn counter_key((vni, address): Permit) -> [u8; program::KEY] {
    let mut key = [0; program::KEY];
    key[..4].copy_from_slice(&vni.to_ne_bytes());
    let family: u32 = if address.is_ipv4() { 4 } else { 6 };
    key[4..8].copy_from_slice(&family.to_ne_bytes());
    match address {
        IpAddr::V4(address) => key[8..12].copy_from_slice(&u32::from(address).to_ne_bytes()),
        IpAddr::V6(address) => key[8..].copy_from_slice(&address.octets()),
    }
    key
}

fn address_key((mark, address): &OwnAddress) -> [u8; program::ADDRESS] {
    let mut key = [0; program::ADDRESS];
    key[..4].copy_from_slice(&mark.to_ne_bytes());
    let family: u32 = if address.is_ipv4() { 4 } else { 6 };
    key[4..8].copy_from_slice(&family.to_ne_bytes());
    match address {
        IpAddr::V4(address) => key[8..12].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => key[8..].copy_from_slice(&address.octets()),
    }
    key
}
