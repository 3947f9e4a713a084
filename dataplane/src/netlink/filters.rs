//! Where packets are looked at: BPF programs at devices, as traffic control's messages.

use super::octets::{as_u32, attribute, attribute_u32, attributes, nested};

const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_INGRESS: u32 = 0xffff_fff2;
const TC_H_EGRESS: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// What our filters' names begin with.
const FILTER: &[u8] = b"weft";

/// Writes `struct tcmsg`.
fn put_traffic_control(out: &mut Vec<u8>, interface: u32, handle: u32, parent: u32, info: u32) {
    out.extend_from_slice(&[0; 4]);
    for word in [interface, handle, parent, info] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

/// Writes the place at a device where filters look at packets.
pub(crate) fn put_clsact(out: &mut Vec<u8>, interface: u32) {
    put_traffic_control(out, interface, 0xffff_0000, TC_H_CLSACT, 0);
    attribute(out, TCA_KIND, b"clsact\0");
}

/// Writes what names our filter of all packets that come in, or that go out.
pub(crate) fn put_filter_key(out: &mut Vec<u8>, interface: u32, ingress: bool) {
    const PRIORITY: u32 = 87;
    let parent = if ingress { TC_H_INGRESS } else { TC_H_EGRESS };
    let all = u32::from((libc::ETH_P_ALL as u16).to_be());
    put_traffic_control(out, interface, 1, parent, PRIORITY << 16 | all);
    attribute(out, TCA_KIND, b"bpf\0");
}

/// Writes a BPF program as our filter.
pub(crate) fn put_filter(out: &mut Vec<u8>, interface: u32, ingress: bool, program: u32) {
    const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
    let name = if ingress {
        &b"weft-ingress\0"[..]
    } else {
        &b"weft-egress\0"[..]
    };
    put_filter_key(out, interface, ingress);
    nested(out, TCA_OPTIONS, |out| {
        attribute_u32(out, TCA_BPF_FD, program);
        attribute(out, TCA_BPF_NAME, name);
        attribute_u32(out, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
    });
}

/// Writes a question for the filters of what comes in, or of what goes out.
pub(crate) fn put_filter_query(out: &mut Vec<u8>, interface: u32, ingress: bool) {
    let parent = if ingress { TC_H_INGRESS } else { TC_H_EGRESS };
    put_traffic_control(out, interface, 0, parent, 0);
}

/// Reads the id of our program from a filter.
pub(crate) fn get_filter(payload: &[u8]) -> Option<u32> {
    let (_, options) = attributes(payload.get(20..)?).find(|(kind, _)| *kind == TCA_OPTIONS)?;
    let field = |wanted| attributes(options).find(|(kind, _)| *kind == wanted);
    let (_, name) = field(TCA_BPF_NAME)?;
    let (_, id) = field(TCA_BPF_ID)?;
    as_u32(id).filter(|_| name.starts_with(FILTER))
}
