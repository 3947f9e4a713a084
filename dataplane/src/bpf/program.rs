//! The two programs, in the kernel's instructions (RFC 9669).

use std::os::fd::RawFd;

/// Octets of a counter's key: VNI, 4 or 6, the far end's address (IPv4 as a number, IPv6 as octets).
pub(super) const KEY: usize = 24;
/// Octets of a counter: packets and octets received, packets and octets sent, 8 octets each.
pub(super) const VALUE: usize = 32;

/// TC_ACT_UNSPEC: others' filters come next.
const PASS: i32 = -1;
const DROP: i32 = 2;

/// Fields of `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
const SKB_IFINDEX: i16 = 40;

/// Fields of `struct bpf_tunnel_key`, 44 octets: id, remote address, TOS, TTL, flags, label, local address.
const TUNNEL_KEY: i32 = 44;
const REMOTE: i16 = 4;
const LOCAL: i16 = 28;
const TOS: i16 = 20;

const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const SKB_GET_TUNNEL_KEY: i32 = 20;
const SKB_SET_TUNNEL_KEY: i32 = 21;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const FROM_NETWORK_HEADER: i32 = 1;
const TUNINFO_IPV6: i32 = 1;
const ZERO_CHECKSUM: i32 = 2;
const DONT_FRAGMENT: i32 = 4;
const BPF_NOEXIST: i32 = 1;

/// Where on the stack the tunnel's key, the counter's key, and a new counter are.
const TUNNEL: i16 = -48;
const COUNTED: i16 = TUNNEL - KEY as i16;
const FRESH: i16 = COUNTED - VALUE as i16;

/// Writes instructions; jumps go to labels that are set later.
#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    jumps: Vec<(usize, &'static str)>,
    labels: Vec<(&'static str, usize)>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.code.push(
            u64::from(code)
                | u64::from(to | from << 4) << 8
                | u64::from(offset as u16) << 16
                | u64::from(immediate as u32) << 32,
        );
    }

    /// to = from
    fn copy(&mut self, to: u8, from: u8) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// to = immediate
    fn set(&mut self, to: u8, immediate: i32) {
        self.push(0xb7, to, 0, 0, immediate);
    }

    /// to += immediate
    fn add(&mut self, to: u8, immediate: i32) {
        self.push(0x07, to, 0, 0, immediate);
    }

    /// to = *(u32 *)(from + offset)
    fn load32(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x61, to, from, offset, 0);
    }

    /// *(u32 *)(to + offset) = from
    fn store32(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x63, to, from, offset, 0);
    }

    /// *(u32 *)(to + offset) = immediate
    fn store32_immediate(&mut self, to: u8, offset: i16, immediate: i32) {
        self.push(0x62, to, 0, offset, immediate);
    }

    /// *(u64 *)(to + offset) = immediate
    fn store64_immediate(&mut self, to: u8, offset: i16, immediate: i32) {
        self.push(0x7a, to, 0, offset, immediate);
    }

    /// *(u64 *)(to + offset) = from
    fn store64(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x7b, to, from, offset, 0);
    }

    /// to = *(u64 *)(from + offset)
    fn load64(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x79, to, from, offset, 0);
    }

    /// to += from
    fn add_register(&mut self, to: u8, from: u8) {
        self.push(0x0f, to, from, 0, 0);
    }

    /// to = the table
    fn table(&mut self, to: u8, table: RawFd) {
        const BPF_PSEUDO_MAP_FD: u8 = 1;
        self.push(0x18, to, BPF_PSEUDO_MAP_FD, 0, table);
        self.code.push(0);
    }

    /// to = *(u8 *)(from + offset)
    fn load8(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x71, to, from, offset, 0);
    }

    /// *(u8 *)(to + offset) = from
    fn store8(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x73, to, from, offset, 0);
    }

    /// to &= immediate
    fn and(&mut self, to: u8, immediate: i32) {
        self.push(0x57, to, 0, 0, immediate);
    }

    /// to <<= immediate
    fn shift_left(&mut self, to: u8, immediate: i32) {
        self.push(0x67, to, 0, 0, immediate);
    }

    /// to |= from
    fn or_register(&mut self, to: u8, from: u8) {
        self.push(0x4f, to, from, 0, 0);
    }

    fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    fn jump_if_equal(&mut self, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x15, register, 0, 0, immediate);
    }

    fn jump_if_not_equal(&mut self, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x55, register, 0, 0, immediate);
    }

    /// to >>= immediate
    fn shift_right(&mut self, to: u8, immediate: i32) {
        self.push(0x77, to, 0, 0, immediate);
    }

    fn jump_if_same(&mut self, one: u8, other: u8, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x1d, one, other, 0, 0);
    }

    fn jump(&mut self, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x05, 0, 0, 0, 0);
    }

    fn label(&mut self, label: &'static str) {
        self.labels.push((label, self.code.len()));
    }

    fn exit(&mut self, verdict: i32) {
        self.set(0, verdict);
        self.push(0x95, 0, 0, 0, 0);
    }

    fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let target = self.labels.iter().find(|(name, _)| *name == label);
            let target = target.map_or(at + 1, |(_, target)| *target);
            let offset = (target - at - 1) as u16;
            self.code[at] |= u64::from(offset) << 16;
        }
        self.code
    }
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const PACKET: u8 = 6;
const FAMILY: u8 = 7;
const LEN: u8 = 8;
const STACK: u8 = 10;

/// Reads the tunnel's key: of IPv4, else of IPv6; goes to `none` where the packet has none.
fn tunnel_key(out: &mut Assembler) {
    for (flags, family) in [(0, 4), (TUNINFO_IPV6, 6)] {
        out.copy(R1, PACKET);
        out.copy(R2, STACK);
        out.add(R2, TUNNEL.into());
        out.set(R3, TUNNEL_KEY);
        out.set(R4, flags);
        out.call(SKB_GET_TUNNEL_KEY);
        out.set(FAMILY, family);
        if family == 4 {
            out.jump_if_equal(R0, 0, "key");
        } else {
            out.jump_if_not_equal(R0, 0, "none");
        }
    }
    out.label("key");
}

/// Counts the packet; `far` is where in the tunnel's key the far end's address is, `field` which counter it is.
fn count(out: &mut Assembler, counters: RawFd, far: i16, field: i16) {
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
    out.table(R1, counters);
    out.copy(R2, STACK);
    out.add(R2, COUNTED.into());
    out.call(MAP_LOOKUP);
    out.jump_if_not_equal(R0, 0, "known");
    for at in 0..4 {
        out.store64_immediate(STACK, FRESH + at * 8, 0);
    }
    out.store64_immediate(STACK, FRESH + field * 8, 1);
    out.store64(STACK, FRESH + field * 8 + 8, LEN);
    out.table(R1, counters);
    out.copy(R2, STACK);
    out.add(R2, COUNTED.into());
    out.copy(R3, STACK);
    out.add(R3, FRESH.into());
    out.set(R4, BPF_NOEXIST);
    out.call(MAP_UPDATE);
    out.jump("counted");
    out.label("known");
    // Each processor has its own: nothing else adds to it.
    out.load64(R1, R0, field * 8);
    out.add(R1, 1);
    out.store64(R0, field * 8, R1);
    out.load64(R1, R0, field * 8 + 8);
    out.add_register(R1, LEN);
    out.store64(R0, field * 8 + 8, R1);
    out.label("counted");
}

/// Where packets come in from the overlay: marks those of a known VNI and counts them; drops all others.
pub(super) fn ingress(marks: RawFd, counters: RawFd) -> Vec<u64> {
    let mut out = Assembler::default();
    out.copy(PACKET, R1);
    zero_tunnel(&mut out);
    tunnel_key(&mut out);
    out.table(R1, marks);
    out.copy(R2, STACK);
    // The VNI is the first field of the tunnel's key.
    out.add(R2, TUNNEL.into());
    out.call(MAP_LOOKUP);
    out.jump_if_equal(R0, 0, "none");
    out.load32(R1, R0, 0);
    out.store32(PACKET, SKB_MARK, R1);
    count(&mut out, counters, REMOTE, 0);
    out.exit(PASS);
    out.label("none");
    out.exit(DROP);
    out.finish()
}

/// Copies the differentiated services code point of the packet to the outer header (RFC 2983 section 3.1), where it has one:
/// next-hop objects say nothing of it. The kernel sees to ECN itself (RFC 6040). `checksum` says that a tunnel over
/// IPv6 has one outside.
fn copy_dscp(out: &mut Assembler, checksum: bool) {
    out.copy(R1, PACKET);
    out.set(R2, 0);
    out.copy(R3, STACK);
    out.add(R3, FRESH.into());
    out.set(R4, 2);
    out.set(R5, FROM_NETWORK_HEADER);
    out.call(SKB_LOAD_BYTES_RELATIVE);
    out.jump_if_not_equal(R0, 0, "none");
    out.load8(R1, STACK, FRESH);
    out.load8(R2, STACK, FRESH + 1);
    out.copy(R3, R1);
    out.shift_right(R3, 4);
    out.jump_if_equal(R3, 4, "read");
    out.jump_if_not_equal(R3, 6, "none");
    // Of IPv6 it begins behind the version, 4 bits.
    out.and(R1, 0x0f);
    out.shift_left(R1, 4);
    out.shift_right(R2, 4);
    out.or_register(R2, R1);
    out.label("read");
    out.and(R2, 0xfc);
    out.jump_if_equal(R2, 0, "none");
    out.store8(STACK, TUNNEL + TOS, R2);
    // What was read of a packet that is sent has its source as "remote"; what is set has its destination there.
    for word in 0..4 {
        out.load32(R1, STACK, TUNNEL + REMOTE + word * 4);
        out.load32(R2, STACK, TUNNEL + LOCAL + word * 4);
        out.store32(STACK, TUNNEL + REMOTE + word * 4, R2);
        out.store32(STACK, TUNNEL + LOCAL + word * 4, R1);
    }
    out.set(R4, DONT_FRAGMENT | ZERO_CHECKSUM);
    out.jump_if_equal(FAMILY, 4, "set");
    let v6 = DONT_FRAGMENT | TUNINFO_IPV6;
    out.set(R4, if checksum { v6 } else { v6 | ZERO_CHECKSUM });
    out.label("set");
    out.copy(R1, PACKET);
    out.copy(R2, STACK);
    out.add(R2, TUNNEL.into());
    out.set(R3, TUNNEL_KEY);
    out.call(SKB_SET_TUNNEL_KEY);
}

/// Where packets go out to the overlay: takes their mark, which must not steer the tunnel's own packet, counts them, and
/// copies their code point. `checksum` says that a tunnel over IPv6 has one outside.
pub(super) fn egress(counters: RawFd, checksum: bool) -> Vec<u64> {
    let mut out = Assembler::default();
    out.copy(PACKET, R1);
    out.set(R1, 0);
    out.store32(PACKET, SKB_MARK, R1);
    zero_tunnel(&mut out);
    tunnel_key(&mut out);
    // Of a packet that is sent the kernel calls the source "remote".
    count(&mut out, counters, LOCAL, 2);
    copy_dscp(&mut out, checksum);
    out.label("none");
    out.exit(PASS);
    out.finish()
}

/// Looks up the mark of the packet's link; goes to `none` where it has none. The mark is in [`LEN`].
fn link_mark(out: &mut Assembler, links: RawFd) {
    out.copy(PACKET, R1);
    out.load32(R1, PACKET, SKB_IFINDEX);
    out.store32(STACK, TUNNEL, R1);
    out.table(R1, links);
    out.copy(R2, STACK);
    out.add(R2, TUNNEL.into());
    out.call(MAP_LOOKUP);
    out.jump_if_equal(R0, 0, "none");
    out.load32(LEN, R0, 0);
}

/// Where a tenant's packets enter: marks them.
pub(super) fn enter(links: RawFd) -> Vec<u64> {
    let mut out = Assembler::default();
    link_mark(&mut out, links);
    out.store32(PACKET, SKB_MARK, LEN);
    out.label("none");
    out.exit(PASS);
    out.finish()
}

/// Where a tenant's packets leave: drops what has another tenant's mark.
pub(super) fn leave(links: RawFd) -> Vec<u64> {
    let mut out = Assembler::default();
    link_mark(&mut out, links);
    out.load32(R1, PACKET, SKB_MARK);
    out.copy(R2, R1);
    out.shift_right(R2, 24);
    out.jump_if_not_equal(R2, (crate::RANGE >> 24) as i32, "none");
    out.jump_if_same(R1, LEN, "none");
    out.exit(DROP);
    out.label("none");
    out.exit(PASS);
    out.finish()
}

fn zero_tunnel(out: &mut Assembler) {
    for at in 0..6 {
        out.store64_immediate(STACK, TUNNEL + at * 8, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_go_to_their_labels() {
        let mut out = Assembler::default();
        out.jump_if_equal(R0, 7, "end");
        out.set(R1, 1);
        out.label("end");
        out.exit(DROP);
        // if r0 == 7 goto +1; r1 = 1; r0 = 2; exit
        assert_eq!(
            out.finish(),
            [
                0x0000_0007_0001_0015,
                0x0000_0001_0000_01b7,
                0x0000_0002_0000_00b7,
                0x95
            ]
        );
    }
}
