//! Routing tables in MRT TABLE_DUMP_V2 (RFC 6396 section 4.3).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use weft_bgp_wire::Prefix;

/// IPv4 prefixes by the attributes that they were seen with, as on the wire: one set a prefix.
pub type Table = BTreeMap<Vec<u8>, Vec<Ipv4Net>>;

/// Reads the IPv4 unicast part of a bzip2-compressed table; of several entries of a prefix the first one counts.
///
/// # Errors
/// Where the file cannot be read or is not compressed so.
///
/// # Panics
/// Where what is in it is no such table.
pub fn read(path: &Path) -> Result<Table> {
    let name = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(name)?;
    let mut octets = Vec::new();
    bzip2::read::MultiBzDecoder::new(file)
        .read_to_end(&mut octets)
        .with_context(name)?;
    let mut table = Table::new();
    let mut rest = &octets[..];
    while !rest.is_empty() {
        let _time = take(&mut rest, 4);
        let (kind, subtype) = (number(&mut rest, 2), number(&mut rest, 2));
        let length = number(&mut rest, 4);
        let mut record = take(&mut rest, length);
        // TABLE_DUMP_V2, RIB_IPV4_UNICAST
        if (kind, subtype) == (13, 2) {
            let (attributes, prefix) = entry(&mut record);
            table.entry(attributes).or_default().push(prefix);
        }
    }
    Ok(table)
}

fn entry(record: &mut &[u8]) -> (Vec<u8>, Ipv4Net) {
    let _sequence = take(record, 4);
    let length = number(record, 1);
    let prefix = Ipv4Net::from_wire(length as u8, take(record, length.div_ceil(8)));
    let entries = number(record, 2);
    assert_ne!(entries, 0, "{prefix} has no entry");
    let _peer_and_time = take(record, 6);
    let length = number(record, 2);
    (take(record, length).to_vec(), prefix)
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = from.split_at(count);
    *from = tail;
    head
}

fn number(from: &mut &[u8], octets: usize) -> usize {
    take(from, octets)
        .iter()
        .fold(0, |number, octet| number << 8 | usize::from(*octet))
}

/// The attributes of a table entry as flags, code and value.
///
/// # Panics
/// Where they are truncated.
pub fn attributes(mut octets: &[u8]) -> Vec<(u8, u8, &[u8])> {
    let mut list = Vec::new();
    while !octets.is_empty() {
        let flags = number(&mut octets, 1) as u8;
        let code = number(&mut octets, 1) as u8;
        let length = number(&mut octets, if flags & 0x10 == 0 { 1 } else { 2 });
        list.push((flags, code, take(&mut octets, length)));
    }
    list
}
