//! What happens to a packet at a tunnel device, as BPF programs (bpf(2)): a VNI becomes its tenant's mark in one look
//! into a hash table, whatever the number of tenants; a VNI that nobody has is dropped; packets and octets are counted by
//! VNI and far end. At a tenant's attachments packets get its mark too, and those with another tenant's do not leave.
//!
//! The programs stay when the process ends, and so do the tables: the next process finds them by the filters at the
//! devices.

mod program;
mod syscall;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::Traffic;
use crate::netlink::filters::{
    get_filter, put_clsact, put_filter, put_filter_key, put_filter_query,
};
use crate::netlink::socket::{Batch, Netlink};

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

/// More VNIs than the format has tenants on one router.
const VNIS: u32 = 1 << 17;
/// Pairs of VNI and far end that are counted; what comes after them is carried, not counted.
const COUNTED: u32 = 1 << 17;

/// The programs and their tables.
#[derive(Debug)]
pub(crate) struct Classifier {
    marks: OwnedFd,
    counters: OwnedFd,
    links: OwnedFd,
    /// By [`Place`]: what comes in, what goes out.
    programs: [[OwnedFd; 2]; 3],
}

/// Where programs are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a device whose tunnels over IPv6 have a checksum outside: VXLAN.
    Vxlan = 0,
    /// At one whose tunnels have none: GRE.
    Gre = 1,
    /// At an attachment of a tenant.
    Attachment = 2,
}

impl Classifier {
    /// Takes over the tables of an earlier process from the filter at one of these devices, or makes new ones, and loads
    /// the programs. Nothing changes at the devices yet.
    ///
    /// # Errors
    /// The kernel's, where it has no BPF or this process may not use it.
    pub(crate) fn new(netlink: &mut Netlink, devices: &[u32]) -> io::Result<Self> {
        let found = devices
            .iter()
            .find_map(|device| Self::tables_at(netlink, *device).ok().flatten());
        let (marks, counters) = match found {
            Some(tables) => tables,
            None => (
                syscall::make_hash("weft_marks", 4, 4, VNIS, false)?,
                syscall::make_hash(
                    "weft_traffic",
                    program::KEY as u32,
                    program::VALUE as u32,
                    COUNTED,
                    true,
                )?,
            ),
        };
        let links = syscall::make_hash("weft_links", 4, 4, VNIS, false)?;
        let (marks_fd, counters_fd) = (marks.as_raw_fd(), counters.as_raw_fd());
        let links_fd = links.as_raw_fd();
        let tunnel = |checksum| -> io::Result<[OwnedFd; 2]> {
            Ok([
                syscall::load("weft_ingress", &program::ingress(marks_fd, counters_fd))?,
                syscall::load("weft_egress", &program::egress(counters_fd, checksum))?,
            ])
        };
        let programs = [
            tunnel(true)?,
            tunnel(false)?,
            [
                syscall::load("weft_enter", &program::enter(links_fd))?,
                syscall::load("weft_leave", &program::leave(links_fd))?,
            ],
        ];
        Ok(Self {
            marks,
            counters,
            links,
            programs,
        })
    }

    /// Ids of our programs at a device.
    fn programs_at(netlink: &mut Netlink, device: u32, ingress: bool) -> io::Result<Vec<u32>> {
        let mut request = Vec::new();
        put_filter_query(&mut request, device, ingress);
        netlink.dump(RTM_GETTFILTER, &request, |found: &mut Vec<u32>, message| {
            found.extend(get_filter(message.payload))
        })
    }

    /// Whether the programs are still at a device.
    pub(crate) fn is_attached(netlink: &mut Netlink, device: u32) -> bool {
        let mut there = |ingress| {
            let programs = Self::programs_at(netlink, device, ingress);
            programs.is_ok_and(|programs| !programs.is_empty())
        };
        there(true) && there(false)
    }

    /// The tables that the filter of an earlier process at a device uses.
    fn tables_at(netlink: &mut Netlink, device: u32) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        let programs = Self::programs_at(netlink, device, true)?;
        let Some(program) = programs.first() else {
            return Ok(None);
        };
        let (mut marks, mut counters) = (None, None);
        for id in syscall::maps_of(*program)? {
            let (map, name) = syscall::map_by_id(id)?;
            match name.as_str() {
                "weft_marks" => marks = Some(map),
                "weft_traffic" => counters = Some(map),
                _ => {}
            }
        }
        Ok(marks.zip(counters))
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
        let mut batch = Batch::default();
        let replace = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        batch.push(RTM_NEWQDISC, libc::NLM_F_CREATE as u16, |out| {
            put_clsact(out, device);
        });
        let [ingress, egress] = &self.programs[place as usize];
        for (program, ingress) in [(ingress, true), (egress, false)] {
            let program = program.as_raw_fd() as u32;
            batch.push(RTM_NEWTFILTER, replace, |out| {
                put_filter(out, device, ingress, program);
            });
        }
        let refused = netlink.send(batch)?;
        // The qdisc may be there already, with others' filters.
        match refused.iter().find(|(number, _)| *number > 0) {
            Some((_, refusal)) => Err(io::Error::from_raw_os_error(refusal.errno)),
            None => Ok(()),
        }
    }

    /// Takes the programs from a device; what is not there need not go.
    ///
    /// # Errors
    /// Of netlink.
    pub(crate) fn detach(netlink: &mut Netlink, device: u32) -> io::Result<()> {
        let mut batch = Batch::default();
        for ingress in [true, false] {
            batch.push(RTM_DELTFILTER, 0, |out| {
                put_filter_key(out, device, ingress);
            });
        }
        netlink.send(batch).map(drop)
    }

    /// Packets of a link get this mark, and those with another do not leave by it.
    ///
    /// # Errors
    /// The kernel's, where the table is full.
    pub(crate) fn set_link(&self, link: u32, mark: u32) -> io::Result<()> {
        syscall::update(&self.links, &link.to_ne_bytes(), &mark.to_ne_bytes())
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
                let word = |at: usize| {
                    u32::from_ne_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]])
                };
                let address = if word(4) == 4 {
                    Ipv4Addr::from(word(8)).into()
                } else {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&key[8..24]);
                    Ipv6Addr::from(octets).into()
                };
                let sum = |field: usize| {
                    value
                        .chunks_exact(program::VALUE)
                        .filter_map(|each| each.get(field * 8..field * 8 + 8)?.try_into().ok())
                        .map(u64::from_ne_bytes)
                        .sum()
                };
                all.push(Traffic {
                    vni: word(0),
                    endpoint: address,
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
