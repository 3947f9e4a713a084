//! Writes programs in the kernel's instructions (RFC 9669).

use std::os::fd::RawFd;

/// Writes instructions; jumps go to labels that are set later.
#[derive(Default)]
pub(super) struct Assembler {
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
    pub(super) fn copy(&mut self, to: u8, from: u8) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// to = immediate
    pub(super) fn set(&mut self, to: u8, immediate: i32) {
        self.push(0xb7, to, 0, 0, immediate);
    }

    /// to += immediate
    pub(super) fn add(&mut self, to: u8, immediate: i32) {
        self.push(0x07, to, 0, 0, immediate);
    }

    /// to = *(u32 *)(from + offset)
    pub(super) fn load32(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x61, to, from, offset, 0);
    }

    /// *(u32 *)(to + offset) = from
    pub(super) fn store32(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x63, to, from, offset, 0);
    }

    /// *(u32 *)(to + offset) = immediate
    pub(super) fn store32_immediate(&mut self, to: u8, offset: i16, immediate: i32) {
        self.push(0x62, to, 0, offset, immediate);
    }

    /// *(u64 *)(to + offset) = immediate
    pub(super) fn store64_immediate(&mut self, to: u8, offset: i16, immediate: i32) {
        self.push(0x7a, to, 0, offset, immediate);
    }

    /// *(u64 *)(to + offset) = from
    pub(super) fn store64(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x7b, to, from, offset, 0);
    }

    /// to = *(u64 *)(from + offset)
    pub(super) fn load64(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x79, to, from, offset, 0);
    }

    /// to += from
    pub(super) fn add_register(&mut self, to: u8, from: u8) {
        self.push(0x0f, to, from, 0, 0);
    }

    /// to -= from
    pub(super) fn subtract_register(&mut self, to: u8, from: u8) {
        self.push(0x1f, to, from, 0, 0);
    }

    /// to = the table
    pub(super) fn table(&mut self, to: u8, table: RawFd) {
        const BPF_PSEUDO_MAP_FD: u8 = 1;
        self.push(0x18, to, BPF_PSEUDO_MAP_FD, 0, table);
        self.code.push(0);
    }

    /// to = *(u8 *)(from + offset)
    pub(super) fn load8(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x71, to, from, offset, 0);
    }

    /// *(u8 *)(to + offset) = from
    pub(super) fn store8(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x73, to, from, offset, 0);
    }

    /// to &= immediate
    pub(super) fn and(&mut self, to: u8, immediate: i32) {
        self.push(0x57, to, 0, 0, immediate);
    }

    /// to <<= immediate
    pub(super) fn shift_left(&mut self, to: u8, immediate: i32) {
        self.push(0x67, to, 0, 0, immediate);
    }

    /// to |= from
    pub(super) fn or_register(&mut self, to: u8, from: u8) {
        self.push(0x4f, to, from, 0, 0);
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// to = *(u16 *)(from + offset)
    pub(super) fn load16(&mut self, to: u8, from: u8, offset: i16) {
        self.push(0x69, to, from, offset, 0);
    }

    /// *(u16 *)(to + offset) = from
    pub(super) fn store16(&mut self, to: u8, offset: i16, from: u8) {
        self.push(0x6b, to, from, offset, 0);
    }

    /// to = the octets of its lower 16 bits in the network's order, or from it.
    pub(super) fn network16(&mut self, to: u8) {
        self.push(0xdc, to, 0, 0, 16);
    }

    /// to = its lower 16 bits with their octets swapped, on a machine of either order.
    pub(super) fn swap16(&mut self, to: u8) {
        let native = if cfg!(target_endian = "little") {
            0xdc
        } else {
            0xd4
        };
        self.push(native, to, 0, 0, 16);
    }

    /// to ^= from
    pub(super) fn xor_register(&mut self, to: u8, from: u8) {
        self.push(0xaf, to, from, 0, 0);
    }

    /// to >>= from
    pub(super) fn shift_right_register(&mut self, to: u8, from: u8) {
        self.push(0x7f, to, from, 0, 0);
    }

    pub(super) fn jump_if_equal(&mut self, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x15, register, 0, 0, immediate);
    }

    pub(super) fn jump_if_not_equal(&mut self, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x55, register, 0, 0, immediate);
    }

    /// to >>= immediate
    pub(super) fn shift_right(&mut self, to: u8, immediate: i32) {
        self.push(0x77, to, 0, 0, immediate);
    }

    pub(super) fn jump_if_same(&mut self, one: u8, other: u8, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x1d, one, other, 0, 0);
    }

    /// Goes to the label where one is less than or equal to the other, without sign.
    pub(super) fn jump_if_at_most(&mut self, one: u8, other: u8, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0xbd, one, other, 0, 0);
    }

    /// Goes to the label where the register is less than the number, without sign.
    pub(super) fn jump_if_below(&mut self, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0xa5, register, 0, 0, immediate);
    }

    pub(super) fn jump(&mut self, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.push(0x05, 0, 0, 0, 0);
    }

    pub(super) fn label(&mut self, label: &'static str) {
        self.labels.push((label, self.code.len()));
    }

    pub(super) fn exit(&mut self, verdict: i32) {
        self.set(0, verdict);
        self.push(0x95, 0, 0, 0, 0);
    }

    pub(super) fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let target = self.labels.iter().find(|(name, _)| *name == label);
            let target = target.map_or(at + 1, |(_, target)| *target);
            debug_assert!(
                self.labels.iter().any(|(name, _)| *name == label),
                "{label}"
            );
            // A loop goes back.
            let offset = (target as isize - at as isize - 1) as i16 as u16;
            self.code[at] |= u64::from(offset) << 16;
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_go_to_their_labels() {
        const R0: u8 = 0;
        const R1: u8 = 1;
        let mut out = Assembler::default();
        out.jump_if_equal(R0, 7, "end");
        out.set(R1, 1);
        out.label("end");
        out.exit(2);
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
