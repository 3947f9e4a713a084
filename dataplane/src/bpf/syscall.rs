//! bpf(2), as far as it is needed: the attributes are the fields of `union bpf_attr` in the kernel's order.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PERCPU_HASH: u32 = 5;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_F_REPLACE: u32 = 4;

/// Octets of `union bpf_attr` that are handed over; what is not set is zero.
const ATTRIBUTES: usize = 72;

/// `union bpf_attr`, field by field. What a pointer points to has to outlive the call, which borrows see to.
struct Attributes<'a> {
    octets: [u8; ATTRIBUTES],
    at: usize,
    borrows: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    fn new() -> Self {
        Self {
            octets: [0; ATTRIBUTES],
            at: 0,
            borrows: std::marker::PhantomData,
        }
    }

    fn u32(mut self, value: u32) -> Self {
        self.octets[self.at..self.at + 4].copy_from_slice(&value.to_ne_bytes());
        self.at += 4;
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.at = self.at.next_multiple_of(8);
        self.octets[self.at..self.at + 8].copy_from_slice(&value.to_ne_bytes());
        self.at += 8;
        self
    }

    /// Something that the kernel reads.
    fn input(self, octets: &'a [u8]) -> Self {
        self.u64(octets.as_ptr() as u64)
    }

    /// Something that the kernel fills.
    fn output(self, octets: &'a mut [u8]) -> Self {
        self.u64(octets.as_mut_ptr() as u64)
    }

    /// An object's name: 15 octets and a zero.
    fn name(mut self, name: &str) -> Self {
        let name = &name.as_bytes()[..name.len().min(15)];
        self.octets[self.at..self.at + name.len()].copy_from_slice(name);
        self.at += 16;
        self
    }

    #[allow(
        unsafe_code,
        reason = "a system call that no library wraps: all that the attributes point to is borrowed for their lifetime, \
                  with the length that the kernel is told or derives from the map"
    )]
    fn call_in_place(&mut self, command: libc::c_long) -> io::Result<i32> {
        let size: libc::c_long = ATTRIBUTES as libc::c_long;
        // SAFETY: the attributes are ours, and what they point to lives as long as they do.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.octets.as_mut_ptr(), size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        i32::try_from(result).map_err(io::Error::other)
    }

    fn call(mut self, command: libc::c_long) -> io::Result<i32> {
        self.call_in_place(command)
    }

    #[allow(unsafe_code, reason = "the kernel made the descriptor for this call")]
    fn open(self, command: libc::c_long) -> io::Result<OwnedFd> {
        let descriptor = self.call(command)?;
        // SAFETY: a new descriptor, which nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

fn descriptor(item: &OwnedFd) -> u32 {
    item.as_raw_fd() as u32
}

/// What a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hash table whose entries take memory as they come.
    Hash,
    /// The same, with a value for each processor.
    HashPerProcessor,
    /// Numbered values, which are always there.
    Array,
    /// The same, with a value for each processor.
    ArrayPerProcessor,
}

/// Makes a table.
pub(super) fn make_table(
    name: &str,
    kind: Kind,
    key: u32,
    value: u32,
    entries: u32,
) -> io::Result<OwnedFd> {
    let (number, flags) = match kind {
        Kind::Hash => (BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC),
        Kind::HashPerProcessor => (BPF_MAP_TYPE_PERCPU_HASH, BPF_F_NO_PREALLOC),
        Kind::Array => (BPF_MAP_TYPE_ARRAY, 0),
        Kind::ArrayPerProcessor => (BPF_MAP_TYPE_PERCPU_ARRAY, 0),
    };
    // map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name.
    Attributes::new()
        .u32(number)
        .u32(key)
        .u32(value)
        .u32(entries)
        .u32(flags)
        .u32(0)
        .u32(0)
        .name(name)
        .open(BPF_MAP_CREATE)
}

/// Loads a classifier.
pub(super) fn load(name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    let code: Vec<u8> = instructions
        .iter()
        .flat_map(|one| one.to_ne_bytes())
        .collect();
    // The helpers that are used are not restricted to the GPL, but what licence a program has must be said.
    let license = b"Apache-2.0\0";
    let load = |log: &mut [u8]| {
        let level = u32::from(!log.is_empty());
        let size = log.len() as u32;
        // prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name.
        let attributes = Attributes::new()
            .u32(BPF_PROG_TYPE_SCHED_CLS)
            .u32(instructions.len() as u32)
            .input(&code)
            .input(license)
            .u32(level)
            .u32(size);
        let attributes = if log.is_empty() {
            attributes.u64(0)
        } else {
            attributes.output(log)
        };
        attributes.u32(0).u32(0).name(name).open(BPF_PROG_LOAD)
    };
    load(&mut []).map_err(|error| {
        // Once more, for the verifier's words.
        let mut log = vec![0; 1 << 16];
        let _ = load(&mut log);
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches('\0').trim();
        if text.is_empty() {
            return error;
        }
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        io::Error::new(error.kind(), format!("{error}: {}", last.join("; ")))
    })
}

pub(super) fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    // map_fd, key, value, flags.
    let attributes = Attributes::new().u32(descriptor(map));
    let attributes = attributes.input(key).input(value).u64(0);
    attributes.call(BPF_MAP_UPDATE_ELEM).map(drop)
}

pub(super) fn delete(map: &OwnedFd, key: &[u8]) -> io::Result<()> {
    let attributes = Attributes::new().u32(descriptor(map)).input(key);
    attributes.call(BPF_MAP_DELETE_ELEM).map(drop)
}

/// Fills `value` with what a table has for a key.
pub(super) fn look_up(map: &OwnedFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let attributes = Attributes::new().u32(descriptor(map)).input(key);
    attributes.output(value).call(BPF_MAP_LOOKUP_ELEM).map(drop)
}

/// Calls `each` with the keys of a table, which have this length.
pub(super) fn walk_keys(
    map: &OwnedFd,
    key_len: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (mut key, mut next) = (vec![0; key_len], vec![0; key_len]);
    let mut first = true;
    loop {
        let attributes = Attributes::new().u32(descriptor(map));
        let attributes = match first {
            true => attributes.u64(0),
            false => attributes.input(&key),
        };
        match attributes.output(&mut next).call(BPF_MAP_GET_NEXT_KEY) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        first = false;
        key.copy_from_slice(&next);
        each(&key);
    }
}

/// Calls `each` with the entries of a table, whose keys and values have these lengths.
pub(super) fn walk(
    map: &OwnedFd,
    key_len: usize,
    value_len: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut value = vec![0; value_len];
    let mut result = Ok(());
    walk_keys(map, key_len, |key| match look_up(map, key, &mut value) {
        Ok(()) => each(key, &value),
        // Gone in between.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => result = Err(error),
    })?;
    result
}

/// Which of a device's packets a program looks at by tcx: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ingress = 46,
    Egress = 47,
}

/// Ids of the programs at a side of a device. A kernel without tcx says EINVAL.
pub(super) fn programs_at(device: u32, side: Side) -> io::Result<Vec<u32>> {
    // The kernel lets 64 be there.
    const MOST: usize = 64;
    let mut ids = vec![0u8; 4 * MOST];
    // target_ifindex, attach_type, query_flags, attach_flags, prog_ids, prog_cnt.
    let mut attributes = Attributes::new()
        .u32(device)
        .u32(side as u32)
        .u32(0)
        .u32(0)
        .output(&mut ids)
        .u32(MOST as u32);
    attributes.call_in_place(BPF_PROG_QUERY)?;
    let [a, b, c, d] = [24, 25, 26, 27].map(|at: usize| attributes.octets[at]);
    let count = u32::from_ne_bytes([a, b, c, d]) as usize;
    let ids = ids.as_chunks::<4>().0.iter().take(count);
    Ok(ids.map(|id| u32::from_ne_bytes(*id)).collect())
}

/// Puts a program at a side of a device: in the place of another one, or behind all that are there.
pub(super) fn attach(
    device: u32,
    side: Side,
    program: &OwnedFd,
    before: Option<&OwnedFd>,
) -> io::Result<()> {
    let flags = if before.is_some() { BPF_F_REPLACE } else { 0 };
    // target_ifindex, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd.
    Attributes::new()
        .u32(device)
        .u32(descriptor(program))
        .u32(side as u32)
        .u32(flags)
        .u32(before.map_or(0, descriptor))
        .call(BPF_PROG_ATTACH)
        .map(drop)
}

/// Takes a program from a side of a device.
pub(super) fn detach(device: u32, side: Side, program: &OwnedFd) -> io::Result<()> {
    // target_ifindex, attach_bpf_fd, attach_type.
    let attributes = Attributes::new().u32(device).u32(descriptor(program));
    attributes.u32(side as u32).call(BPF_PROG_DETACH).map(drop)
}

/// A program by its id, and its name.
pub(super) fn program_by_id(id: u32) -> io::Result<(OwnedFd, String)> {
    let program = Attributes::new().u32(id).open(BPF_PROG_GET_FD_BY_ID)?;
    // struct bpf_prog_info: its name is behind what `maps_of` reads.
    let mut info = [0u8; 80];
    object_info(&program, &mut info)?;
    let name = String::from_utf8_lossy(&info[64..80]);
    let name = name.trim_end_matches('\0').to_owned();
    Ok((program, name))
}

/// The id of a program.
pub(super) fn id_of(program: &OwnedFd) -> io::Result<u32> {
    // struct bpf_prog_info: type, id.
    let mut info = [0u8; 8];
    object_info(program, &mut info)?;
    Ok(u32::from_ne_bytes([info[4], info[5], info[6], info[7]]))
}

/// Ids of the tables that a program uses.
pub(super) fn maps_of(program: &OwnedFd) -> io::Result<Vec<u32>> {
    // struct bpf_prog_info up to `map_ids`: type, id, tag[8], jited_prog_len, xlated_prog_len, two pointers, load_time,
    // created_by_uid, nr_map_ids, map_ids.
    let mut ids = vec![0u8; 4 * 16];
    let mut info = [0u8; 64];
    info[52..56].copy_from_slice(&16u32.to_ne_bytes());
    info[56..64].copy_from_slice(&(ids.as_mut_ptr() as u64).to_ne_bytes());
    object_info(program, &mut info)?;
    let count = u32::from_ne_bytes([info[52], info[53], info[54], info[55]]) as usize;
    let ids = ids.as_chunks::<4>().0.iter().take(count);
    Ok(ids.map(|id| u32::from_ne_bytes(*id)).collect())
}

/// A table by its id, and its name.
pub(super) fn map_by_id(id: u32) -> io::Result<(OwnedFd, String)> {
    let map = Attributes::new().u32(id).open(BPF_MAP_GET_FD_BY_ID)?;
    // struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags, name[16].
    let mut info = [0u8; 40];
    object_info(&map, &mut info)?;
    let name = String::from_utf8_lossy(&info[24..40]);
    let name = name.trim_end_matches('\0').to_owned();
    Ok((map, name))
}

fn object_info(object: &OwnedFd, info: &mut [u8]) -> io::Result<()> {
    // bpf_fd, info_len, info.
    let len = info.len() as u32;
    let attributes = Attributes::new().u32(descriptor(object)).u32(len);
    attributes
        .output(info)
        .call(BPF_OBJ_GET_INFO_BY_FD)
        .map(drop)
}

/// Values of a table per processor come for as many as there may be.
pub(super) fn possible_processors() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit(['-', ',']).next();
    last.and_then(|last| last.parse::<usize>().ok())
        .map_or(1, |last| last + 1)
}
