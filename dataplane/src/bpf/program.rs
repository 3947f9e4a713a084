//! The programs.

use std::os::fd::RawFd;

use super::assembler::Assembler;
use crate::steps::{STEPS, STEPS_MASK};
use crate::tunnel_echo;

/// Octets of a counter's key: VNI, 4 or 6, the far end's address (IPv4 as a number, IPv6 as octets).
pub(super) const KEY: usize = 24;
/// In a counter's key, in the place of 4 or 6: probes of other routers in a VNI, those that came in to be sent back, and those that went.
pub(super) const PROBES: u32 = 1;
/// Octets of a far end: the counter's key without the VNI.
pub(super) const PATH: usize = KEY - 4;
/// Octets of a counter: packets and octets received, packets and octets sent, 8 octets each.
pub(super) const VALUE: usize = 32;
/// Which of these numbers is the first of what comes in, and of what goes out.
const RECEIVED: i16 = 0;
const SENT: i16 = 2;
/// Octets of an address of the router: the mark of the tenant that may reach it, or 0 for "somebody has it"; 4 or 6; the
/// address, IPv4 in the first 4 octets.
pub(super) const ADDRESS: usize = 24;
/// Octets of the filter before the addresses: a bit for each of their hashes, see [`filter_bit`].
pub(super) const FILTER: usize = 1 << 13;

/// Which bit of the filter an address has, by the last 4 octets of it.
pub(super) fn filter_bit(last: [u8; 4]) -> usize {
    let word = u32::from_ne_bytes(last);
    ((word ^ word >> 16) & 0xffff) as usize
}

/// Why packets are dropped, as the drops are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    UnknownVni = 0,
    ForeignAddress = 1,
    ForeignAttachment = 2,
    OtherProtocol = 3,
    Untranslated = 4,
    UnknownSender = 5,
}

/// The tables that programs look into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) marks: RawFd,
    pub(super) counters: RawFd,
    /// Who may send, by a counter's key; VNI 0 stands for every one.
    pub(super) senders: RawFd,
    pub(super) links: RawFd,
    pub(super) far_links: RawFd,
    pub(super) addresses: RawFd,
    pub(super) filter: RawFd,
    pub(super) drops: RawFd,
    pub(super) mtus: RawFd,
    pub(super) paths: RawFd,
}

/// What tells tunnel devices apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnels {
    /// Octets before the packet inside: an Ethernet header, or nothing.
    pub(super) header: i32,
    /// A tunnel over IPv6 has a checksum outside.
    pub(super) checksum: bool,
    /// Over IPv6 the kernel chooses the source of what it sends, whatever it is told: no address of it is known anywhere.
    pub(super) chooses_source: bool,
    /// The code point outside, as it comes in, is the packet's.
    pub(super) uniform: bool,
    /// Outer packets over IPv4 are not fragmented.
    pub(super) dont_fragment: bool,
    /// The router's own endpoint has an IPv6 address, and so will most of the others.
    pub(super) v6: bool,
}

/// Of a probe as it comes in to be sent back.
const PROBE_TTL: i32 = tunnel_echo::TTL as i32;

/// TC_ACT_UNSPEC: others' filters come next.
const PASS: i32 = -1;
const DROP: i32 = 2;

/// Fields of `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
/// In network order.
const SKB_PROTOCOL: i16 = 16;
const SKB_TAGGED: i16 = 20;
const SKB_TAG: i16 = 24;
/// Where it came in; 0 where this router made it.
const SKB_FROM: i16 = 36;
const SKB_IFINDEX: i16 = 40;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// The VLAN of a tag; the other bits are its priority.
const VLAN: i32 = 0x0fff;

/// EtherTypes, as [`SKB_PROTOCOL`] has them.
const IPV4: i32 = 0x0800u16.to_be() as i32;
const ARP: i32 = 0x0806u16.to_be() as i32;
const IPV6: i32 = 0x86ddu16.to_be() as i32;

/// Fields of `struct bpf_tunnel_key`, 44 octets: id, remote address, TOS, TTL, flags, label, local address.
const TUNNEL_KEY: i32 = 44;
const REMOTE: i16 = 4;
const LOCAL: i16 = 28;
const TOS: i16 = 20;

const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const SKB_STORE_BYTES: i32 = 9;
const L3_CSUM_REPLACE: i32 = 10;
const L4_CSUM_REPLACE: i32 = 11;
const SKB_GET_TUNNEL_KEY: i32 = 20;
const SKB_SET_TUNNEL_KEY: i32 = 21;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const FROM_NETWORK_HEADER: i32 = 1;
const TUNINFO_IPV6: i32 = 1;
const ZERO_CHECKSUM: i32 = 2;
const DONT_FRAGMENT: i32 = 4;
const BPF_NOEXIST: i32 = 1;

/// Links with an index below it have their marks in an array, where nothing is searched. The others are in a hash table.
pub(super) const NEAR_LINKS: u32 = 1 << 15;

/// What is read of a packet's header at once: all of IPv4's that matters, and IPv6's up to its addresses.
const HEADER_LEN: i32 = 20;
const ICMP: i32 = 1;
const TCP: i32 = 6;
const ICMP_V6: i32 = 58;
/// Kinds of ICMP (RFC 792) and ICMPv6 (RFC 4443): errors of the latter are below the informational ones.
const ECHO_REQUEST: i32 = 8;
const ECHO_REPLY_V6: i32 = 129;
const REDIRECT_V6: i32 = 137;
const INFORMATIONAL_V6: i32 = 128;
/// Where TCP's flags are.
const TCP_FLAGS: i32 = 13;
const RST: i32 = 0x04;
const SYN_ACK: i32 = 0x12;
/// SYN and RST, of TCP's flags.
const SYN_RST: i32 = 0x06;
const SYN: i32 = 0x02;
/// TCP has at most so many options: 40 octets of one each.
const OPTIONS: i32 = 40;
const OPTION_END: i32 = 0;
const OPTION_NOTHING: i32 = 1;
const OPTION_SEGMENT: i32 = 2;

/// Where on the stack things are: the tunnel's key, the counter's key, a new counter, the header, an address's key, and
/// numbers for a moment.
const TUNNEL: i16 = -48;
const COUNTED: i16 = TUNNEL - KEY as i16;
const FRESH: i16 = COUNTED - VALUE as i16;
const HEADER: i16 = FRESH - 24;
const OWN: i16 = HEADER - ADDRESS as i16;
const SEGMENT: i16 = OWN - 8;
const FIRST: i16 = SEGMENT - 8;
const SCRATCH: i16 = FIRST - 8;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const PACKET: u8 = 6;
const FAMILY: u8 = 7;
const LEN: u8 = 8;
const MARK: u8 = 9;
/// The same registers, once family, length and mark have been used.
const AT: u8 = 7;
const END: u8 = 8;
const ROUND: u8 = 9;
const STACK: u8 = 10;

impl Assembler {
    /// to = where on the stack
    fn address_of(&mut self, to: u8, place: i16) {
        self.copy(to, STACK);
        self.add(to, place.into());
    }

    /// R0 = the value of the key on the stack, or 0.
    fn look_up(&mut self, table: RawFd, key: i16) {
        self.table(R1, table);
        self.address_of(R2, key);
        self.call(MAP_LOOKUP);
    }

    /// Reads octets of the packet to the stack, from its network header on, which R2 counts from. R0 is 0 where they are
    /// there.
    fn read(&mut self, to: i16, len: i32) {
        self.copy(R1, PACKET);
        self.address_of(R3, to);
        self.set(R4, len);
        self.set(R5, FROM_NETWORK_HEADER);
        self.call(SKB_LOAD_BYTES_RELATIVE);
    }

    /// Counts the packet as dropped, and drops it.
    fn drop(&mut self, drops: RawFd, reason: Reason, out: &'static str) {
        self.store32_immediate(STACK, SCRATCH, reason as i32);
        self.look_up(drops, SCRATCH);
        self.jump_if_equal(R0, 0, out);
        self.load64(R1, R0, 0);
        self.add(R1, 1);
        self.store64(R0, 0, R1);
        self.label(out);
        self.exit(DROP);
    }
}

/// Reads the tunnel's key, of the usual family first; goes to `none` where the packet has none.
fn tunnel_key(out: &mut Assembler, v6: bool) {
    let mut families = [(0, 4), (TUNINFO_IPV6, 6)];
    families.rotate_left(v6.into());
    for (at, (flags, family)) in families.into_iter().enumerate() {
        out.copy(R1, PACKET);
        out.address_of(R2, TUNNEL);
        out.set(R3, TUNNEL_KEY);
        out.set(R4, flags);
        out.call(SKB_GET_TUNNEL_KEY);
        out.set(FAMILY, family);
        if at == 0 {
            out.jump_if_equal(R0, 0, "key");
        } else {
            out.jump_if_not_equal(R0, 0, "none");
        }
    }
    out.label("key");
}

/// Puts a counter's key on the stack; `far` is where in the tunnel's key the far end's address is.
fn counted(out: &mut Assembler, far: i16) {
    out.load32(R1, STACK, TUNNEL);
    out.store32(STACK, COUNTED, R1);
    out.store32(STACK, COUNTED + 4, FAMILY);
    for word in 0..4 {
        out.load32(R1, STACK, TUNNEL + far + word * 4);
        out.store32(STACK, COUNTED + 8 + word * 4, R1);
    }
    // Of an IPv4 address the other words are what was there before.
    out.jump_if_equal(FAMILY, 6, "addressed");
    for word in 1..4 {
        out.store32_immediate(STACK, COUNTED + 8 + word * 4, 0);
    }
    out.label("addressed");
    out.load32(LEN, PACKET, SKB_LEN);
}

/// Begins the counter of the key on the stack with this packet; `field` is which.
fn begin_counter(out: &mut Assembler, counters: RawFd, key: i16, field: i16) {
    for at in 0..4 {
        out.store64_immediate(STACK, FRESH + at * 8, 0);
    }
    out.store64_immediate(STACK, FRESH + field * 8, 1);
    out.store64(STACK, FRESH + field * 8 + 8, LEN);
    out.table(R1, counters);
    out.address_of(R2, key);
    out.address_of(R3, FRESH);
    out.set(R4, BPF_NOEXIST);
    out.call(MAP_UPDATE);
}

/// Adds this packet to the counter at [`R0`]. Each processor has its own: nothing else adds to it.
fn add_to_counter(out: &mut Assembler, field: i16) {
    out.load64(R1, R0, field * 8);
    out.add(R1, 1);
    out.store64(R0, field * 8, R1);
    out.load64(R1, R0, field * 8 + 8);
    out.add_register(R1, LEN);
    out.store64(R0, field * 8 + 8, R1);
}

/// Counts a packet that goes out, by where it goes.
fn count_out(out: &mut Assembler, counters: RawFd) {
    // Of a packet that is sent the kernel calls the source "remote".
    counted(out, LOCAL);
    out.look_up(counters, COUNTED);
    out.jump_if_not_equal(R0, 0, "known");
    begin_counter(out, counters, COUNTED, SENT);
    out.jump("counted");
    out.label("known");
    add_to_counter(out, SENT);
    out.label("counted");
}

/// Counts a packet that came in, by who sent it; goes to `stranger` where that one may not send this VNI. A counter that
/// has counted a packet that came in is a permit: whoever takes the permit away takes the counter away too.
fn admit(out: &mut Assembler, tables: &Tables, tunnels: Tunnels) {
    counted(out, REMOTE);
    if tunnels.chooses_source {
        out.jump_if_equal(FAMILY, 4, "sent");
        for word in 0..4 {
            out.store32_immediate(STACK, COUNTED + 8 + word * 4, 0);
        }
        out.label("sent");
    }
    out.look_up(tables.counters, COUNTED);
    out.jump_if_equal(R0, 0, "first");
    out.load64(R1, R0, RECEIVED * 8);
    out.jump_if_not_equal(R1, 0, "known");
    out.label("first");
    out.look_up(tables.senders, COUNTED);
    out.jump_if_not_equal(R0, 0, "permitted");
    out.store32_immediate(STACK, COUNTED, 0);
    out.look_up(tables.senders, COUNTED);
    out.load32(R1, STACK, TUNNEL);
    out.store32(STACK, COUNTED, R1);
    out.jump_if_not_equal(R0, 0, "permitted");
    // Routers whose addresses nobody knows are one, and have one counter.
    for word in 0..4 {
        out.store32_immediate(STACK, COUNTED + 8 + word * 4, 0);
    }
    out.look_up(tables.senders, COUNTED);
    out.jump_if_not_equal(R0, 0, "permitted");
    out.store32_immediate(STACK, COUNTED, 0);
    out.look_up(tables.senders, COUNTED);
    out.jump_if_equal(R0, 0, "stranger");
    out.load32(R1, STACK, TUNNEL);
    out.store32(STACK, COUNTED, R1);
    out.label("permitted");
    // It is there where another processor counts too, or where packets went out.
    out.look_up(tables.counters, COUNTED);
    out.jump_if_not_equal(R0, 0, "known");
    begin_counter(out, tables.counters, COUNTED, RECEIVED);
    out.jump("counted");
    out.label("known");
    add_to_counter(out, RECEIVED);
    out.label("counted");
}

/// Counts a probe of another router, by its VNI: a packet from an address to itself with this TTL, which it is to be sent back with one
/// less. Nearly all packets have another TTL.
fn count_probe(out: &mut Assembler, counters: RawFd, field: i16, ttl: i32) {
    out.load8(R1, STACK, HEADER);
    out.shift_right(R1, 4);
    out.jump_if_equal(R1, 6, "probe-v6");
    out.load8(R1, STACK, HEADER + 8);
    out.jump_if_not_equal(R1, ttl, "no-probe");
    out.load32(R1, STACK, HEADER + 12);
    out.load32(R2, STACK, HEADER + 16);
    out.jump_if_same(R1, R2, "probe");
    out.jump("no-probe");
    out.label("probe-v6");
    out.load8(R1, STACK, HEADER + 7);
    out.jump_if_not_equal(R1, ttl, "no-probe");
    out.set(R2, 8);
    out.read(FRESH, 32);
    out.jump_if_not_equal(R0, 0, "no-probe");
    for (half, same) in [(0, "probe-half"), (8, "probe")] {
        out.load64(R1, STACK, FRESH + half);
        out.load64(R2, STACK, FRESH + 16 + half);
        out.jump_if_same(R1, R2, same);
        out.jump("no-probe");
        if half == 0 {
            out.label(same);
        }
    }
    out.label("probe");
    out.load32(R1, STACK, TUNNEL);
    out.store32(STACK, OWN, R1);
    out.store32_immediate(STACK, OWN + 4, PROBES as i32);
    for word in 0..4 {
        out.store32_immediate(STACK, OWN + 8 + word * 4, 0);
    }
    out.look_up(counters, OWN);
    out.jump_if_not_equal(R0, 0, "known-probe");
    begin_counter(out, counters, OWN, field);
    out.jump("no-probe");
    out.label("known-probe");
    add_to_counter(out, field);
    out.label("no-probe");
}

/// Reads the packet's header to the stack, straight where it lies `before` octets behind the beginning of what is at hand.
fn header_behind(out: &mut Assembler, before: i32) {
    out.load32(R2, PACKET, SKB_DATA);
    out.load32(R3, PACKET, SKB_DATA_END);
    out.copy(R1, R2);
    out.add(R1, before + HEADER_LEN);
    out.jump_if_at_most(R1, R3, "at-hand");
    header(out);
    out.jump("header");
    out.label("at-hand");
    let before = before as i16;
    for word in [0, 8] {
        out.load64(R1, R2, before + word);
        out.store64(STACK, HEADER + word, R1);
    }
    out.load32(R1, R2, before + 16);
    out.store32(STACK, HEADER + 16, R1);
    out.label("header");
}

/// Reads the packet's header to the stack; goes to `pass` where it has none: what comes next judges it.
fn header(out: &mut Assembler) {
    out.set(R2, 0);
    out.read(HEADER, HEADER_LEN);
    out.jump_if_not_equal(R0, 0, "pass");
}

/// Goes to `other` where what the kernel will read is not of the Internet protocols, to `pass` where it is ARP. A tag that the
/// kernel has not taken off yet is another protocol.
fn protocol(out: &mut Assembler) {
    out.load32(R1, PACKET, SKB_PROTOCOL);
    out.jump_if_equal(R1, IPV4, "internet");
    out.jump_if_equal(R1, ARP, "pass");
    out.jump_if_not_equal(R1, IPV6, "other");
    out.label("internet");
}

/// Goes to `foreign` where the packet is for an address of the router that is not its tenant's, whose mark is in
/// [`MARK`]. The filter spares nearly all others the look into the table.
fn guard(out: &mut Assembler, tables: &Tables) {
    out.load8(R1, STACK, HEADER);
    out.shift_right(R1, 4);
    out.jump_if_equal(R1, 6, "to-ipv6");
    out.load32(R2, STACK, HEADER + 16);
    out.store32(STACK, OWN + 8, R2);
    for word in 1..4 {
        out.store32_immediate(STACK, OWN + 8 + word * 4, 0);
    }
    out.store32_immediate(STACK, OWN + 4, 4);
    out.jump("to");
    out.label("to-ipv6");
    out.set(R2, 24);
    out.read(OWN + 8, 16);
    out.jump_if_not_equal(R0, 0, "pass");
    out.load32(R2, STACK, OWN + 20);
    out.store32_immediate(STACK, OWN + 4, 6);
    out.label("to");
    out.copy(LEN, R2);
    out.shift_right(LEN, 16);
    out.xor_register(LEN, R2);
    out.and(LEN, 0xffff);
    out.store32_immediate(STACK, SCRATCH, 0);
    out.look_up(tables.filter, SCRATCH);
    out.jump_if_equal(R0, 0, "guarded");
    out.copy(R1, LEN);
    out.shift_right(R1, 3);
    out.add_register(R0, R1);
    out.load8(R1, R0, 0);
    out.and(LEN, 7);
    out.shift_right_register(R1, LEN);
    out.and(R1, 1);
    out.jump_if_equal(R1, 0, "guarded");
    out.store32_immediate(STACK, OWN, 0);
    out.look_up(tables.addresses, OWN);
    out.jump_if_equal(R0, 0, "guarded");
    out.store32(STACK, OWN, MARK);
    out.look_up(tables.addresses, OWN);
    out.jump_if_equal(R0, 0, "foreign");
    out.label("guarded");
}

/// The first two octets of the header in [`R1`] and [`R2`], and the packet's traffic class in [`R2`] then; which version
/// it is in [`R3`].
fn traffic_class(out: &mut Assembler) {
    out.load8(R1, STACK, HEADER);
    out.load8(R2, STACK, HEADER + 1);
    out.copy(R3, R1);
    out.shift_right(R3, 4);
    out.jump_if_equal(R3, 4, "class");
    // Of IPv6 it begins behind the version, 4 bits.
    out.and(R1, 0x0f);
    out.shift_left(R1, 4);
    out.shift_right(R2, 4);
    out.or_register(R2, R1);
    out.label("class");
}

/// Copies the differentiated services code point of the packet to the outer header (RFC 2983 section 3.1), where it has one:
/// next-hop objects say nothing of it. The kernel sees to ECN itself (RFC 6040).
fn copy_code_point_out(out: &mut Assembler, checksum: bool, dont_fragment: bool) {
    traffic_class(out);
    out.and(R2, 0xfc);
    out.jump_if_equal(R2, 0, "set");
    out.store8(STACK, TUNNEL + TOS, R2);
    // What was read of a packet that is sent has its source as "remote"; what is set has its destination there.
    for word in 0..4 {
        out.load32(R1, STACK, TUNNEL + REMOTE + word * 4);
        out.load32(R2, STACK, TUNNEL + LOCAL + word * 4);
        out.store32(STACK, TUNNEL + REMOTE + word * 4, R2);
        out.store32(STACK, TUNNEL + LOCAL + word * 4, R1);
    }
    let whole = if dont_fragment { DONT_FRAGMENT } else { 0 };
    out.set(R4, whole | ZERO_CHECKSUM);
    out.jump_if_equal(FAMILY, 4, "flags");
    let v6 = whole | TUNINFO_IPV6;
    out.set(R4, if checksum { v6 } else { v6 | ZERO_CHECKSUM });
    out.label("flags");
    out.copy(R1, PACKET);
    out.address_of(R2, TUNNEL);
    out.set(R3, TUNNEL_KEY);
    out.call(SKB_SET_TUNNEL_KEY);
    out.label("set");
}

/// Copies the code point of the outer header to the packet (RFC 2983 section 3.2, the uniform model), which keeps its ECN.
/// `before` is what comes before the packet, octets.
fn copy_code_point_in(out: &mut Assembler, before: i32) {
    traffic_class(out);
    out.load8(R4, STACK, TUNNEL + TOS);
    out.and(R4, 0xfc);
    out.copy(R5, R2);
    out.and(R5, 0xfc);
    out.jump_if_same(R4, R5, "copied");
    out.and(R2, 0x03);
    out.or_register(R2, R4);
    // The first two octets as they are to be.
    out.load8(R1, STACK, HEADER);
    out.store8(STACK, SCRATCH, R1);
    out.store8(STACK, SCRATCH + 1, R2);
    out.jump_if_equal(R3, 4, "copy");
    out.copy(R4, R2);
    out.shift_right(R4, 4);
    out.and(R1, 0xf0);
    out.or_register(R1, R4);
    out.store8(STACK, SCRATCH, R1);
    out.and(R2, 0x0f);
    out.shift_left(R2, 4);
    out.load8(R1, STACK, HEADER + 1);
    out.and(R1, 0x0f);
    out.or_register(R2, R1);
    out.store8(STACK, SCRATCH + 1, R2);
    out.label("copy");
    out.copy(LEN, R3);
    out.copy(R1, PACKET);
    out.set(R2, before);
    out.address_of(R3, SCRATCH);
    out.set(R4, 2);
    out.set(R5, 0);
    out.call(SKB_STORE_BYTES);
    out.jump_if_equal(LEN, 6, "copied");
    out.copy(R1, PACKET);
    out.set(R2, before + 10);
    out.load16(R3, STACK, HEADER);
    out.load16(R4, STACK, SCRATCH);
    out.set(R5, 2);
    out.call(L3_CSUM_REPLACE);
    out.label("copied");
}

/// Fits TCP segments to the device, and to the way to the far end where that is narrower: no more octets in one than that leaves, as
/// both ends learn from SYN. The far end is where [`count`] left it. Packets of other
/// protocols and others of TCP's are as they were.
fn fit_segments(out: &mut Assembler, tables: &Tables, before: i32) {
    out.load8(R1, STACK, HEADER);
    out.copy(R2, R1);
    out.shift_right(R2, 4);
    out.jump_if_equal(R2, 6, "fit-ipv6");
    out.load8(R2, STACK, HEADER + 9);
    out.jump_if_not_equal(R2, TCP, "pass");
    // Only the first fragment has TCP's header.
    out.load16(R2, STACK, HEADER + 6);
    out.network16(R2);
    out.and(R2, 0x1fff);
    out.jump_if_not_equal(R2, 0, "pass");
    out.and(R1, 0x0f);
    out.shift_left(R1, 2);
    out.copy(AT, R1);
    out.set(END, 20 + 20);
    out.jump("fit");
    out.label("fit-ipv6");
    out.load8(R2, STACK, HEADER + 6);
    out.jump_if_not_equal(R2, TCP, "pass");
    out.set(AT, 40);
    out.set(END, 40 + 20);
    out.label("fit");
    // Length and flags.
    out.copy(R2, AT);
    out.add(R2, 12);
    out.read(SCRATCH, 2);
    out.jump_if_not_equal(R0, 0, "pass");
    out.load8(R1, STACK, SCRATCH + 1);
    out.and(R1, SYN_RST);
    out.jump_if_not_equal(R1, SYN, "pass");
    out.load32(R1, PACKET, SKB_IFINDEX);
    out.store32(STACK, SEGMENT, R1);
    out.look_up(tables.mtus, SEGMENT);
    out.jump_if_equal(R0, 0, "pass");
    out.load32(R1, R0, 0);
    out.store64(STACK, SEGMENT, R1);
    out.look_up(tables.paths, COUNTED + 4);
    out.load64(R1, STACK, SEGMENT);
    out.jump_if_equal(R0, 0, "fit-device");
    out.load32(R2, R0, 0);
    out.jump_if_at_most(R1, R2, "fit-device");
    out.copy(R1, R2);
    out.label("fit-device");
    out.jump_if_at_most(R1, END, "pass");
    out.subtract_register(R1, END);
    out.store64(STACK, SEGMENT, R1);
    out.store64(STACK, FIRST, AT);
    out.load8(END, STACK, SCRATCH);
    out.shift_right(END, 4);
    out.shift_left(END, 2);
    out.add_register(END, AT);
    out.add(AT, 20);
    out.set(ROUND, OPTIONS);
    out.label("option");
    out.add(ROUND, -1);
    out.jump_if_equal(ROUND, 0, "pass");
    out.copy(R1, AT);
    out.add(R1, 1);
    out.jump_if_at_most(END, R1, "pass");
    out.copy(R2, AT);
    out.read(SCRATCH, 2);
    out.jump_if_not_equal(R0, 0, "pass");
    out.load8(R1, STACK, SCRATCH);
    out.load8(R2, STACK, SCRATCH + 1);
    out.jump_if_equal(R1, OPTION_END, "pass");
    out.jump_if_equal(R1, OPTION_SEGMENT, "segment");
    out.jump_if_not_equal(R1, OPTION_NOTHING, "longer");
    out.set(R2, 1);
    out.jump("next");
    out.label("longer");
    out.jump_if_below(R2, 2, "pass");
    out.label("next");
    out.add_register(AT, R2);
    out.jump("option");
    out.label("segment");
    out.jump_if_not_equal(R2, 4, "pass");
    out.add(AT, 2);
    out.copy(R2, AT);
    out.read(SCRATCH, 2);
    out.jump_if_not_equal(R0, 0, "pass");
    out.load16(R1, STACK, SCRATCH);
    out.network16(R1);
    out.load64(R2, STACK, SEGMENT);
    out.jump_if_at_most(R1, R2, "pass");
    out.network16(R2);
    out.store16(STACK, SCRATCH + 2, R2);
    // The checksum takes octets in pairs: where the option is at an odd place they are the other way round.
    out.load16(R3, STACK, SCRATCH);
    out.copy(R4, R2);
    out.copy(R1, AT);
    out.and(R1, 1);
    out.jump_if_equal(R1, 0, "even");
    out.swap16(R3);
    out.swap16(R4);
    out.label("even");
    out.copy(R1, PACKET);
    out.load64(R2, STACK, FIRST);
    out.add(R2, before + 16);
    out.set(R5, 2);
    out.call(L4_CSUM_REPLACE);
    out.copy(R1, PACKET);
    out.copy(R2, AT);
    out.add(R2, before);
    out.address_of(R3, SCRATCH + 2);
    out.set(R4, 2);
    out.set(R5, 0);
    out.call(SKB_STORE_BYTES);
}

/// Where packets come in from the overlay: marks those of a known VNI, counts them and fits their segments; drops what has
/// no VNI of ours, what comes from who may not send it, what a tenant has put into a tunnel by itself, what is of another protocol or has a tag, and what is for an address of the router that is not its tenant's.
pub(super) fn ingress(tables: &Tables, tunnels: Tunnels) -> Vec<u64> {
    let mut out = Assembler::default();
    out.copy(PACKET, R1);
    // The mark of what was around it. A tenant's host can send to its router's address there whatever it likes.
    out.load32(R1, PACKET, SKB_MARK);
    out.shift_right(R1, 24);
    out.jump_if_equal(R1, (crate::RANGE >> 24) as i32, "stranger");
    out.and(R1, (STEPS_MASK >> 24) as i32);
    out.jump_if_equal(R1, (STEPS >> 24) as i32, "stranger");
    tunnel_key(&mut out, tunnels.v6);
    // The VNI is the first field of the tunnel's key.
    out.look_up(tables.marks, TUNNEL);
    out.jump_if_equal(R0, 0, "none");
    out.load32(MARK, R0, 0);
    out.load32(R1, PACKET, SKB_TAGGED);
    out.jump_if_not_equal(R1, 0, "other");
    protocol(&mut out);
    out.store32(PACKET, SKB_MARK, MARK);
    admit(&mut out, tables, tunnels);
    header_behind(&mut out, tunnels.header);
    count_probe(&mut out, tables.counters, RECEIVED, PROBE_TTL);
    guard(&mut out, tables);
    if tunnels.uniform {
        copy_code_point_in(&mut out, tunnels.header);
    }
    fit_segments(&mut out, tables, tunnels.header);
    out.label("pass");
    out.exit(PASS);
    out.label("none");
    out.drop(tables.drops, Reason::UnknownVni, "no-vni");
    out.label("stranger");
    out.drop(tables.drops, Reason::UnknownSender, "no-sender");
    out.label("other");
    out.drop(tables.drops, Reason::OtherProtocol, "no-protocol");
    out.label("foreign");
    out.drop(tables.drops, Reason::ForeignAddress, "no-address");
    out.finish()
}

/// Where packets go out to the overlay: takes their mark, which must not steer the tunnel's own packet, counts them, copies
/// their code point, and fits their segments.
pub(super) fn egress(tables: &Tables, tunnels: Tunnels) -> Vec<u64> {
    let mut out = Assembler::default();
    out.copy(PACKET, R1);
    out.set(R1, 0);
    out.store32(PACKET, SKB_MARK, R1);
    tunnel_key(&mut out, tunnels.v6);
    count_out(&mut out, tables.counters);
    header_behind(&mut out, tunnels.header);
    count_probe(&mut out, tables.counters, SENT, PROBE_TTL - 1);
    copy_code_point_out(&mut out, tunnels.checksum, tunnels.dont_fragment);
    fit_segments(&mut out, tables, tunnels.header);
    out.label("none");
    out.label("pass");
    out.exit(PASS);
    out.finish()
}

/// What is said of a link, octets: the mark of its tenant, and that which packets get where they enter.
pub(super) const LINK: usize = 8;
const ENTRANCE: i16 = 4;

/// Looks up the mark of the packet's link; goes to `pass` where it has none. What is said of it is at `R0` then.
fn link_mark(out: &mut Assembler, tables: &Tables) {
    out.copy(PACKET, R1);
    out.load32(R1, PACKET, SKB_IFINDEX);
    out.store32(STACK, SCRATCH, R1);
    out.set(R2, NEAR_LINKS as i32);
    out.jump_if_at_most(R2, R1, "far-link");
    out.look_up(tables.links, SCRATCH);
    out.jump("link");
    out.label("far-link");
    out.look_up(tables.far_links, SCRATCH);
    out.label("link");
    out.jump_if_equal(R0, 0, "pass");
    out.load32(MARK, R0, 0);
    out.jump_if_equal(MARK, 0, "pass");
}

/// Where a tenant's packets enter: marks them; drops what is of another protocol, and what is for an address of the router that
/// is not the tenant's. What has the tag of a VLAN is that device's, which says whose it is: the kernel drops it where there is
/// no such device. A tag without a VLAN is as none.
pub(super) fn enter(tables: &Tables) -> Vec<u64> {
    let mut out = Assembler::default();
    link_mark(&mut out, tables);
    out.load32(R1, PACKET, SKB_TAGGED);
    out.jump_if_equal(R1, 0, "untagged");
    out.load32(R1, PACKET, SKB_TAG);
    out.and(R1, VLAN);
    out.jump_if_not_equal(R1, 0, "pass");
    out.label("untagged");
    // ARP is the tenant's: nftables, which decides on packets of chains, does not see it.
    out.store32(PACKET, SKB_MARK, MARK);
    protocol(&mut out);
    out.load32(R1, R0, ENTRANCE);
    out.store32(PACKET, SKB_MARK, R1);
    header(&mut out);
    guard(&mut out, tables);
    out.label("pass");
    out.exit(PASS);
    out.label("other");
    out.drop(tables.drops, Reason::OtherProtocol, "no-protocol");
    out.label("foreign");
    out.drop(tables.drops, Reason::ForeignAddress, "no-address");
    out.finish()
}

/// Where a tenant's packets leave: drops what has another tenant's mark, and what came from elsewhere without any. Answers from a
/// way to the Internet have their tenant's mark, and so has what this router answers to the tenant itself: its other answers are for somebody
/// who named a tenant's host as the source.
pub(super) fn leave(tables: &Tables) -> Vec<u64> {
    let mut out = Assembler::default();
    link_mark(&mut out, tables);
    out.load32(R1, PACKET, SKB_MARK);
    out.copy(R2, R1);
    out.jump_if_same(R1, MARK, "pass");
    out.shift_right(R2, 24);
    out.jump_if_equal(R2, (crate::RANGE >> 24) as i32, "foreign");
    // A step's mark leads to a service node and nowhere else.
    out.and(R2, (STEPS_MASK >> 24) as i32);
    out.jump_if_equal(R2, (STEPS >> 24) as i32, "pass");
    out.load32(R1, PACKET, SKB_FROM);
    out.jump_if_not_equal(R1, 0, "foreign");
    answers(&mut out);
    out.label("foreign");
    out.drop(tables.drops, Reason::ForeignAttachment, "no-attachment");
    out.label("pass");
    out.exit(PASS);
    out.finish()
}

/// Goes on where the packet is what the kernel answers by itself: an error, a redirect or an echo reply of ICMP, TCP that accepts or resets a
/// connection; else to `pass`.
fn answers(out: &mut Assembler) {
    out.load32(R1, PACKET, SKB_PROTOCOL);
    out.copy(MARK, R1);
    out.jump_if_equal(MARK, IPV4, "made-here");
    out.jump_if_not_equal(MARK, IPV6, "pass");
    out.label("made-here");
    header(out);
    out.jump_if_equal(MARK, IPV4, "made-here-4");
    out.load8(R1, STACK, HEADER + 6);
    out.set(R2, 40);
    out.jump("made-of");
    out.label("made-here-4");
    out.load8(R1, STACK, HEADER + 9);
    out.load8(R2, STACK, HEADER);
    out.and(R2, 0x0f);
    out.shift_left(R2, 2);
    out.label("made-of");
    out.copy(FAMILY, R1);
    out.jump_if_equal(FAMILY, ICMP, "first-octet");
    out.jump_if_equal(FAMILY, ICMP_V6, "first-octet");
    out.jump_if_not_equal(FAMILY, TCP, "pass");
    out.add(R2, TCP_FLAGS);
    out.label("first-octet");
    out.read(SCRATCH, 1);
    out.jump_if_not_equal(R0, 0, "pass");
    out.load8(R1, STACK, SCRATCH);
    out.jump_if_equal(FAMILY, TCP, "flags");
    out.jump_if_equal(FAMILY, ICMP_V6, "kind-6");
    out.jump_if_equal(R1, ECHO_REQUEST, "pass");
    out.jump("answer");
    out.label("kind-6");
    out.jump_if_equal(R1, ECHO_REPLY_V6, "answer");
    out.jump_if_equal(R1, REDIRECT_V6, "answer");
    out.jump_if_below(R1, INFORMATIONAL_V6, "answer");
    out.jump("pass");
    out.label("flags");
    out.copy(R2, R1);
    out.and(R2, RST);
    out.jump_if_not_equal(R2, 0, "answer");
    out.and(R1, SYN_ACK);
    out.jump_if_not_equal(R1, SYN_ACK, "pass");
    out.label("answer");
}

/// Where a tenant's attachment was: nothing comes in, and nothing goes out.
pub(super) fn closed() -> Vec<u64> {
    let mut out = Assembler::default();
    out.exit(DROP);
    out.finish()
}

/// Where tenants leave for elsewhere: drops what still has a tenant's mark. nftables takes it from packets whose source is fit for
/// what is there.
pub(super) fn outside(tables: &Tables) -> Vec<u64> {
    let mut out = Assembler::default();
    out.load32(R1, R1, SKB_MARK);
    out.shift_right(R1, 24);
    out.jump_if_equal(R1, (crate::RANGE >> 24) as i32, "private");
    out.exit(PASS);
    out.label("private");
    out.drop(tables.drops, Reason::Untranslated, "not-counted");
    out.finish()
}
