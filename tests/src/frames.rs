//! Frames by hand, out of an interface of a node: what a hostile host sends, or whoever is in the underlay.

#![allow(unsafe_code, reason = "nix makes no addresses of links")]

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket};

use crate::Lab;

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
/// Of a tag (IEEE 802.1Q).
pub const TAG: u16 = 0x8100;

/// Protocol numbers.
pub const ICMP: u8 = 1;
/// Of UDP.
pub const UDP: u8 = 17;

/// An interface of a node, which frames go out of.
pub struct Wire {
    socket: OwnedFd,
    own: [u8; 6],
}

impl Wire {
    /// # Panics
    /// Where there is no such interface, or no permission.
    pub fn at(lab: &Lab, node: &str, interface: &str) -> Self {
        let own = mac(lab, node, interface);
        let name = std::ffi::CString::new(interface).unwrap();
        let socket = lab.in_node(node, || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
            // SAFETY: a string that ends with a zero.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            let to = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: 0,
                sll_ifindex: index as i32,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            // SAFETY: a whole `sockaddr_ll`, which outlives the call.
            let bound = unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const to).cast(),
                    size_of_val(&to) as u32,
                )
            };
            assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
            socket
        });
        Self { socket, own }
    }

    /// Sends a packet, behind as many tags (priority and VID) as are given, to whoever has this MAC address.
    ///
    /// # Panics
    /// Where the kernel does not take it.
    pub fn send(&self, to: [u8; 6], tags: &[u16], packet: &[u8]) {
        let frame = ethernet(to, self.own, tags, packet);
        let sent = send(self.socket.as_raw_fd(), &frame, MsgFlags::empty());
        assert_eq!(sent.unwrap(), frame.len());
    }
}

/// The MAC address of an interface.
///
/// # Panics
/// Where there is none.
pub fn mac(lab: &Lab, node: &str, interface: &str) -> [u8; 6] {
    let text = lab.run(node, &format!("ip -o link show dev {interface}"));
    let octets = text.split("link/ether ").nth(1).unwrap();
    let octets = octets.split(' ').next().unwrap().split(':');
    let octets = octets.map(|octet| u8::from_str_radix(octet, 16).unwrap());
    octets.collect::<Vec<u8>>().try_into().unwrap()
}

/// A frame with an IPv4 packet.
pub fn ethernet(to: [u8; 6], from: [u8; 6], tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for tag in tags {
        frame.extend(TAG.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(IPV4.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    header.extend_from_slice(payload);
    header
}

/// A UDP datagram without a checksum.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let fields = [from, to, 8 + payload.len() as u16, 0];
    let mut octets: Vec<u8> = fields.iter().flat_map(|one| one.to_be_bytes()).collect();
    octets.extend_from_slice(payload);
    octets
}

/// An ICMP echo request.
pub fn echo() -> Vec<u8> {
    let mut octets = vec![8, 0, 0, 0, 0x57, 0xe7, 0, 1];
    let sum = checksum(&octets);
    octets[2..4].copy_from_slice(&sum);
    octets
}

/// What a tunnel endpoint gets at UDP port 4789: a frame with a VNI (RFC 7348).
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let header = [0x0800_0000, vni << 8].map(u32::to_be_bytes).concat();
    udp(50_000, 4789, &[&header[..], frame].concat())
}

fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}
