//! Where programs look at a device's packets: tcx where the kernel has it (Linux 6.6), which costs a packet the least, and
//! traffic control's filters elsewhere.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::syscall::{self, Side};
use crate::netlink::filters::{
    get_filter, put_clsact, put_filter, put_filter_key, put_filter_query,
};
use crate::netlink::socket::{Batch, Netlink};

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

/// What our programs' names begin with.
const OURS: &str = "weft_";
/// Every namespace has it: what works there works elsewhere.
const LOOPBACK: u32 = 1;

/// Programs of ours at one side of a device.
#[derive(Debug, Default)]
struct Found {
    /// By tcx, and their names.
    tcx: Vec<OwnedFd>,
    names: Vec<String>,
    /// Numbers of the programs of filters.
    filters: Vec<u32>,
}

impl Found {
    fn at(netlink: &mut Netlink, device: u32, side: Side) -> io::Result<Self> {
        let mut found = Self::default();
        // A kernel without it has none there.
        for id in syscall::programs_at(device, side).unwrap_or_default() {
            let (program, name) = syscall::program_by_id(id)?;
            if name.starts_with(OURS) {
                found.tcx.push(program);
                found.names.push(name);
            }
        }
        let mut request = Vec::new();
        put_filter_query(&mut request, device, side == Side::Ingress);
        found.filters = netlink.dump(RTM_GETTFILTER, &request, |all: &mut Vec<u32>, message| {
            all.extend(get_filter(message.payload))
        })?;
        Ok(found)
    }
}

/// The tables of the programs that come first at a device, as numbers.
pub(super) fn tables_at(netlink: &mut Netlink, device: u32) -> io::Result<Vec<u32>> {
    let found = Found::at(netlink, device, Side::Ingress)?;
    if let Some(program) = found.tcx.first() {
        return syscall::maps_of(program);
    }
    match found.filters.first() {
        Some(id) => syscall::maps_of(&syscall::program_by_id(*id)?.0),
        None => Ok(Vec::new()),
    }
}

/// The names of our programs for what comes in at a device.
pub(super) fn names(netlink: &mut Netlink, device: u32) -> io::Result<Vec<String>> {
    let found = Found::at(netlink, device, Side::Ingress)?;
    let mut names = found.names;
    for id in &found.filters {
        names.push(syscall::program_by_id(*id)?.1);
    }
    Ok(names)
}

/// Whether programs of ours are at a device.
pub(super) fn is_attached(netlink: &mut Netlink, device: u32) -> bool {
    [Side::Ingress, Side::Egress].into_iter().any(|side| {
        let found = Found::at(netlink, device, side);
        found.is_ok_and(|found| !found.tcx.is_empty() || !found.filters.is_empty())
    })
}

/// Whether these programs, by id, are at a device, for what comes in and for what goes out.
pub(super) fn holds(netlink: &mut Netlink, device: u32, ids: [Option<u32>; 2]) -> io::Result<bool> {
    for (side, id) in [Side::Ingress, Side::Egress].into_iter().zip(ids) {
        let Some(id) = id else { continue };
        let there = if has_tcx() {
            syscall::programs_at(device, side)?.contains(&id)
        } else {
            Found::at(netlink, device, side)?.filters.contains(&id)
        };
        if !there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The kernel has tcx.
pub(crate) fn has_tcx() -> bool {
    syscall::programs_at(LOOPBACK, Side::Ingress).is_ok()
}

/// Puts programs at a device, for what comes in and for what goes out, in the place of those of an earlier process.
pub(super) fn attach(
    netlink: &mut Netlink,
    device: u32,
    [ingress, egress]: &[Option<OwnedFd>; 2],
) -> io::Result<()> {
    if !has_tcx() {
        return attach_filters(netlink, device, [ingress.as_ref(), egress.as_ref()]);
    }
    for (side, program) in [(Side::Ingress, ingress), (Side::Egress, egress)] {
        let found = Found::at(netlink, device, side)?;
        let Some(program) = program else {
            // What was put there for another place.
            for program in &found.tcx {
                syscall::detach(device, side, program)?;
            }
            continue;
        };
        let mut tcx = found.tcx.iter();
        syscall::attach(device, side, program, tcx.next())?;
        for more in tcx {
            syscall::detach(device, side, more)?;
        }
        if !found.filters.is_empty() {
            // Of a process under an older kernel, or of an older Weft: packets would be looked at twice.
            detach_filter(netlink, device, side)?;
        }
    }
    Ok(())
}

fn attach_filters(
    netlink: &mut Netlink,
    device: u32,
    [ingress, egress]: [Option<&OwnedFd>; 2],
) -> io::Result<()> {
    let mut batch = Batch::default();
    let replace = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    batch.push(RTM_NEWQDISC, libc::NLM_F_CREATE as u16, |out| {
        put_clsact(out, device);
    });
    for (program, ingress) in [(ingress, true), (egress, false)] {
        let Some(program) = program else {
            // What was put there for another place.
            let side = if ingress { Side::Ingress } else { Side::Egress };
            if !Found::at(netlink, device, side)?.filters.is_empty() {
                detach_filter(netlink, device, side)?;
            }
            continue;
        };
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

fn detach_filter(netlink: &mut Netlink, device: u32, side: Side) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.push(RTM_DELTFILTER, 0, |out| {
        put_filter_key(out, device, side == Side::Ingress);
    });
    netlink.send(batch).map(drop)
}

/// Takes programs of ours from a device; what is not there need not go.
pub(super) fn detach(netlink: &mut Netlink, device: u32) -> io::Result<()> {
    for side in [Side::Ingress, Side::Egress] {
        let found = Found::at(netlink, device, side)?;
        for program in &found.tcx {
            syscall::detach(device, side, program)?;
        }
        if !found.filters.is_empty() {
            detach_filter(netlink, device, side)?;
        }
    }
    Ok(())
}
